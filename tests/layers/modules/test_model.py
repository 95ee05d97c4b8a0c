"""A hand-written Llama as a whole: weights, network, logits equal to transformers'."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trtllm_port.errors import CheckpointError, ConfigError, NetworkError
from trtllm_port.layers import DecoderModelForCausalLM, Linear, Mapping, Module, Network
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.reference import ReferenceExecutor

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**TINY, tie_word_embeddings=True, initializer_range=0.2)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tiny_dir(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    reference.save_pretrained(directory)
    return directory


def logits(network: Network, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """The logits of all tokens of a first call."""
    executor = ReferenceExecutor(NetworkFile.from_network(network), network.weights)
    batch, length = ids.shape
    steps = torch.arange(length).expand(batch, length).contiguous()
    feeds = {"input_ids": ids, "position_ids": steps if positions is None else positions, "logits_indices": steps}
    for spec in executor.inputs[3:]:
        feeds[spec.name] = torch.zeros(batch, *spec.shape[1:], dtype=getattr(torch, spec.dtype))
    return executor.run(feeds)["logits"]


def test_logits_are_transformers(llama: ModuleType, reference: Any, tiny_dir: Path) -> None:
    network = llama.LlamaForCausalLM.from_hugging_face(tiny_dir).define(max_seq_len=16)
    ids = torch.randint(0, 64, (2, 11))
    with torch.no_grad():
        torch.testing.assert_close(logits(network, ids), reference(ids).logits, rtol=1e-4, atol=1e-4)


def test_tokens_one_by_one_give_the_same_logits(llama: ModuleType, tiny_dir: Path) -> None:
    """Two rows that begin at different lengths; the cache's slots are positions."""
    network = llama.LlamaForCausalLM.from_hugging_face(tiny_dir).define(max_seq_len=16)
    executor = ReferenceExecutor(NetworkFile.from_network(network), network.weights)
    cache = {spec.name: torch.full((2, *spec.shape[1:]), 7.0) for spec in executor.inputs[3:]}  # 7.0: garbage
    ids = torch.randint(0, 64, (2, 8))
    whole = logits(network, ids)

    def step(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        last = torch.full((2, 1), tokens.shape[1] - 1)
        feeds = {"input_ids": tokens, "position_ids": positions, "logits_indices": last}
        return executor.run(feeds | cache)["logits"][:, 0]

    step(ids[:, :5], torch.arange(5).expand(2, 5).contiguous())
    lengths = torch.tensor([5, 3])  # the second row's last two tokens were padding
    for _ in range(3):
        tokens = ids[torch.arange(2), lengths][:, None]
        found = step(tokens, lengths[:, None])
        torch.testing.assert_close(found, whole[torch.arange(2), lengths])
        lengths = lengths + 1


def test_the_network_is_what_executors_expect(llama: ModuleType, tiny_dir: Path) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir, "float16")
    network = model.define(max_seq_len=16)
    definition = network.definition
    caches = [f"{i}.{part}" for i in range(2) for part in ("key", "value")]
    assert [definition.get_input(i).name for i in range(definition.num_inputs)] == [
        "input_ids",
        "position_ids",
        "logits_indices",
        *(f"past_key_values.{name}" for name in caches),
    ]
    assert [definition.get_output(i).name for i in range(definition.num_outputs)] == [
        "logits",
        *(f"present_key_values.{name}" for name in caches),
    ]
    assert tuple(definition.get_output(0).shape) == (-1, -1, 64)
    assert tuple(definition.get_input(3).shape) == (-1, 2, 16, 8)
    assert definition.get_output(0).dtype == network.trt.float16
    assert network.taps["lm_head"] == "logits"
    hf_modules = {name for name, _ in transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY)).named_modules()}
    not_tapped = {"", "model.layers", "model.layers.0.mlp.act_fn", "model.layers.1.mlp.act_fn"}
    assert hf_modules - not_tapped == {tap for tap in network.taps if ":" not in tap}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensorrt_compiles_the_trained_model(llama: ModuleType, stories: Path, dtype: str, compile_engine: Any) -> None:
    network = llama.LlamaForCausalLM.from_hugging_face(stories, dtype).define(max_seq_len=64)
    definition = network.definition
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("input_ids", "position_ids", "logits_indices"), (2, 5))
    for i in range(3, definition.num_inputs):
        shapes[definition.get_input(i).name] = (2, *tuple(definition.get_input(i).shape)[1:])
    assert compile_engine(network, shapes) == []


def test_greedy_tokens_of_the_trained_model(llama: ModuleType, stories: Path) -> None:
    reference = transformers.LlamaForCausalLM.from_pretrained(stories)
    network = llama.LlamaForCausalLM.from_hugging_face(stories).define(max_seq_len=64)
    ids = torch.randint(3, 512, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(ids).logits
    found = logits(network, ids)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert (found - expected).norm() / expected.norm() < 1e-5


class OldStyle(DecoderModelForCausalLM):
    """The old guide's way: both parts go to the base class, whose forward is kept."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, self.model_class(config), Linear(config.hidden_size, config.vocab_size, bias=False))

    model_class: type[Module]
    weight_map = {  # noqa: RUF012  a class variable in the base
        "model.*": "transformer.*",
        "lm_head.weight": "lm_head.weight",
    }


def test_a_port_in_the_old_guides_style(llama: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY, tie_word_embeddings=False)).eval()
    reference.save_pretrained(tmp_path)

    class Port(OldStyle):
        config_class = llama.LlamaConfig
        model_class = llama.LlamaModel

    network = Port.from_hugging_face(tmp_path, "float32", Mapping()).define(max_seq_len=16)
    assert network.taps["transformer.layers.1"] == "transformer.layers.1"
    ids = torch.randint(0, 64, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(logits(network, ids), reference(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_comes_back(llama: ModuleType, tiny_dir: Path, tmp_path: Path) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir, "bfloat16")
    model.save_checkpoint(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "rank0.safetensors"]
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"producer": {"name": "test"}}))
    again = llama.LlamaForCausalLM.from_checkpoint(tmp_path)
    assert again.config == model.config
    assert again.weights.keys() == model.weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in model.weights.items())


def test_weights_of_the_same_type_are_not_copied(llama: ModuleType, tiny_dir: Path) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir)
    stored = sum(value.untyped_storage().nbytes() for value in model.weights.values())
    network = model.define(max_seq_len=16)
    size = (tiny_dir / "model.safetensors").stat().st_size
    assert stored <= len(model.weights) * size  # views of the mapped file
    for name, parameter in network.parameters.items():
        assert network.constants[name].data_ptr() == model.weights[parameter].data_ptr()


def test_loading_is_strict_and_tells_everything(llama: ModuleType, tiny_dir: Path) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir)
    weights = dict(model.weights)
    del weights["model.norm.weight"]
    weights["extra"] = torch.zeros(1)
    weights["model.embed_tokens.weight"] = torch.zeros(2, 2)
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].half()
    with pytest.raises(CheckpointError) as caught:
        model.load(weights)
    assert caught.value.message.splitlines()[1:] == [
        "  `model.embed_tokens.weight` is float32 (2, 2), expected float32 (64, 32)",
        "  `model.layers.0.mlp.up_proj.weight` is float16 (48, 32), expected float32 (48, 32)",
        "  missing `model.norm.weight`",
        "  unexpected `extra`",
    ]


def test_a_tied_head_in_the_file(llama: ModuleType, tiny_dir: Path, tmp_path: Path) -> None:
    """transformers drops an equal one, and does not tie a different one; a port is told to be sure."""
    weights = load_file(tiny_dir / "model.safetensors")
    (tmp_path / "config.json").write_text((tiny_dir / "config.json").read_text())
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    model = llama.LlamaForCausalLM.from_hugging_face(tmp_path)
    assert "lm_head.weight" not in model.weights
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"`lm_head.weight` differs from `model.embed_tokens.weight`"):
        llama.LlamaForCausalLM.from_hugging_face(tmp_path)
    del weights["model.embed_tokens.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    model = llama.LlamaForCausalLM.from_hugging_face(tmp_path)
    assert torch.equal(model.weights["model.embed_tokens.weight"], weights["lm_head.weight"])


def test_a_limit_to_the_texts_that_a_port_was_proven_for(
    llama: ModuleType, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir)
    monkeypatch.setattr(type(model.config), "LONGEST", 16)
    assert model.define(max_seq_len=16)
    with pytest.raises(NetworkError, match="texts of up to 16 tokens"):
        model.define(max_seq_len=17)


def test_what_a_port_cannot_do_is_refused(llama: ModuleType, tiny_dir: Path) -> None:
    model = llama.LlamaForCausalLM.from_hugging_face(tiny_dir)
    with pytest.raises(NetworkError, match="max_seq_len is 0"):
        model.define(max_seq_len=0)
    with pytest.raises(ConfigError, match="pp_size is 2"):
        llama.LlamaForCausalLM(replace(model.config, mapping=Mapping(pp_size=2)))
    with pytest.raises(ConfigError, match="has no layer that can be cut"):
        llama.LlamaForCausalLM(replace(model.config, mapping=Mapping(tp_size=2))).parameter_specs()
    with pytest.raises(ConfigError, match=r"has no `config.json`"):
        llama.LlamaForCausalLM.from_checkpoint(tiny_dir / "nowhere")


def test_defining_a_large_model_is_quick(llama: ModuleType) -> None:
    """24 layers without their weights in memory: expanded scalars stand for them."""
    config = llama.LlamaConfig(
        **{**TINY, "num_hidden_layers": 24},
        architecture="LlamaForCausalLM",
        dtype="float16",
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    model = llama.LlamaForCausalLM(config)
    model.load({name: torch.zeros(p.shape, dtype=torch.float16) for name, p in model.named_parameters()})
    start = time.perf_counter()
    model.define(max_seq_len=32)
    assert time.perf_counter() - start < 1.5
