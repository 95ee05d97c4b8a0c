"""Every config key is accounted for, and a value that is built in is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import transformers

from trtllm_port.codegen import PortSource, generate_port
from trtllm_port.codegen.configs.sizes import META_KEYS
from trtllm_port.codegen.write.ledger import compared_names
from trtllm_port.errors import ConfigError

ConfigModule = Callable[[PortSource], ModuleType]


@pytest.fixture
def config_module(tmp_path: Path, import_file: Callable[[Path], ModuleType]) -> ConfigModule:
    """Writes and imports the config of a port."""

    def written(port: PortSource) -> ModuleType:
        (tmp_path / "config.py").write_text(port.files["config.py"])
        return import_file(tmp_path / "config.py")

    return written


def test_every_key_of_llama_has_one_place(llama: PortSource) -> None:
    keys = set(transformers.LlamaConfig().to_dict())
    tables = [set(llama.ledger.used), set(llama.ledger.fixed), set(llama.ledger.ignored)]
    assert set.union(*tables) == keys
    assert sum(map(len, tables)) == len(keys)


def test_keys_of_llama_are_where_they_belong(llama: PortSource) -> None:
    assert {"hidden_size", "rope_parameters", "attention_bias", "hidden_act"} <= set(llama.ledger.used)
    assert not llama.ledger.fixed
    assert {"pretraining_tp", "attention_dropout", "initializer_range", "bos_token_id"} <= set(llama.ledger.ignored)
    assert "nothing changes" in llama.ledger.ignored["pretraining_tp"]


@pytest.mark.slow
def test_a_key_that_transformers_does_not_know_changes_nothing() -> None:
    found = generate_port(transformers.LlamaConfig(invented_by_nobody=3)).ledger
    assert "nothing changes" in found.ignored["invented_by_nobody"]


@pytest.mark.slow
def test_what_is_built_in_is_refused_by_name(tmp_path: Path, config_module: ConfigModule) -> None:
    port = generate_port(transformers.GPTNeoXConfig())
    assert port.ledger.fixed == {"head_dim": None}
    assert "use_parallel_residual" in port.ledger.used
    config_class = config_module(port).GPTNeoXConfig
    model = tmp_path / "model"
    transformers.GPTNeoXConfig(architectures=["GPTNeoXForCausalLM"]).save_pretrained(model)
    assert config_class.from_hugging_face(model).num_attention_heads == 64
    transformers.GPTNeoXConfig(head_dim=128).save_pretrained(model)
    with pytest.raises(ConfigError, match="head_dim"):
        config_class.from_hugging_face(model)


@pytest.mark.slow
def test_a_key_that_only_the_modelling_code_knows_is_followed(tmp_path: Path, config_module: ConfigModule) -> None:
    assert "head_dim" not in transformers.Qwen2Config().to_dict()
    port = generate_port(transformers.Qwen2Config())
    assert "head_dim" in port.ledger.used
    model = tmp_path / "model"
    transformers.Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(model)
    assert config_module(port).Qwen2Config.from_hugging_face(model).head_dim is None
    transformers.Qwen2Config(architectures=["Qwen2ForCausalLM"], head_dim=64).save_pretrained(model)
    assert config_module(port).Qwen2Config.from_hugging_face(model).head_dim == 64


@pytest.mark.slow
def test_per_layer_values_that_are_built_in_do_not_fix_the_number_of_layers(
    tmp_path: Path, config_module: ConfigModule
) -> None:
    port = generate_port(transformers.Qwen2Config())
    config_class = config_module(port).Qwen2Config
    model = tmp_path / "model"
    transformers.Qwen2Config(num_hidden_layers=7, architectures=["Qwen2ForCausalLM"]).save_pretrained(model)
    assert config_class.from_hugging_face(model).num_hidden_layers == 7
    transformers.Qwen2Config(use_sliding_window=True, max_window_layers=1).save_pretrained(model)
    with pytest.raises(ConfigError, match="layer_types"):
        config_class.from_hugging_face(model)


def test_meta_keys_are_no_sizes() -> None:
    assert not META_KEYS & {"hidden_size", "vocab_size", "tie_word_embeddings", "hidden_act"}


@pytest.mark.slow
def test_what_is_built_in_of_a_config_within_the_config_is_refused_by_name(
    tmp_path: Path, config_module: ConfigModule
) -> None:
    sizes = {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "vocab_size": 96}

    def config(**experts: object) -> transformers.DbrxConfig:
        ffn = {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, **experts}
        attention = {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0}
        return transformers.DbrxConfig(
            **sizes, attn_config=attention, ffn_config=ffn, architectures=["DbrxForCausalLM"]
        )

    port = generate_port(config())
    assert "ffn_config" in port.ledger.used
    config_class = config_module(port).DbrxConfig
    model = tmp_path / "model"
    config(moe_num_experts=8, moe_top_k=3).save_pretrained(model)  # the port follows these
    assert config_class.from_hugging_face(model).ffn_config["moe_top_k"] == 3
    config(ffn_act_fn={"name": "gelu"}).save_pretrained(model)
    with pytest.raises(ConfigError, match=r"`ffn_config\.ffn_act_fn` is .*gelu.*, the port was written for .*'silu'"):
        config_class.from_hugging_face(model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('silu(x) if self.config.act == "silu" else relu(x)', {"act": ["silu", "relu"]}),
        ('if config.act not in ("gelu", "silu"):', {"act": ["silu", "relu"]}),
        ("self.act_fn = Activation(config.act)", {}),
        ("if config.size == 3 and config.other_act == 'silu':", {}),
    ],
)
def test_a_name_that_was_not_traced_is_not_taken_for_the_last(text: str, expected: dict[str, list[str]]) -> None:
    values = {"act": "silu", "size": 3}
    assert compared_names(values, [values, {"act": "relu", "size": 3}], text) == expected
