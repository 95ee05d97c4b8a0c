"""Configs: resolved by transformers, strict in both directions."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_utils import get_state_dict_dtype, load_state_dict

from trtllm_port.errors import ConfigError
from trtllm_port.layers import Every, Mapping, OneOf, PretrainedConfig
from trtllm_port.layers.config.built_in import parameter_sets


@dataclass(frozen=True, kw_only=True)
class MistralConfig(PretrainedConfig):
    hidden_size: int
    num_key_value_heads: int
    sliding_window: int | None
    rope_parameters: dict[str, Any]
    rms_norm_eps: float = 1e-6

    FIXED: ClassVar[dict[str, Any]] = {"hidden_act": "silu", "no_such_key": 1}

    @property
    def twice(self) -> int:
        return 2 * self.hidden_size


@dataclass(frozen=True, kw_only=True)
class FalconConfig(PretrainedConfig):
    num_ln_in_parallel_attn: int = 2


def write(directory: Path, **values: Any) -> Path:
    base = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 48}
    (directory / "config.json").write_text(json.dumps({**base, **values}))
    return directory


def test_fields_are_what_transformers_resolves(tmp_path: Path) -> None:
    """Defaults that `config.json` leaves out, and old names that transformers renames."""
    config = MistralConfig.from_hugging_face(write(tmp_path, torch_dtype="bfloat16", rope_theta=5e5))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.num_key_value_heads == theirs.num_key_value_heads == 8
    assert config.rope_parameters == dict(theirs.rope_parameters)
    assert config.rope_parameters["rope_theta"] == 5e5
    assert config.sliding_window == theirs.sliding_window
    assert config.architecture == "MistralForCausalLM"
    assert config.dtype == "bfloat16"
    assert config.twice == 96
    assert config.mapping == Mapping()
    with pytest.raises(FrozenInstanceError):
        config.dtype = "float32"  # type: ignore[misc]


def test_null_is_kept_where_the_field_allows_it(tmp_path: Path) -> None:
    assert MistralConfig.from_hugging_face(write(tmp_path, sliding_window=None)).sliding_window is None
    with pytest.raises(ConfigError, match="`rms_norm_eps` is null"):
        MistralConfig._check_values({"rms_norm_eps": None}, "dir")


def test_where_the_config_has_null_a_field_has_its_default() -> None:
    config = transformers.FalconConfig(architectures=["FalconForCausalLM"], new_decoder_architecture=True)
    assert config.num_ln_in_parallel_attn is None
    assert FalconConfig.of(config, "float32").num_ln_in_parallel_attn == 2
    config.num_ln_in_parallel_attn = 1
    assert FalconConfig.of(config, "float32").num_ln_in_parallel_attn == 1


def test_auto_follows_the_weights_where_the_config_is_silent(tmp_path: Path) -> None:
    assert MistralConfig.from_hugging_face(write(tmp_path)).dtype == "float32"
    save_file({"a": torch.zeros(1, dtype=torch.int64), "b": torch.zeros(1).half()}, tmp_path / "model.safetensors")
    assert MistralConfig.from_hugging_face(tmp_path).dtype == "float16"
    assert MistralConfig.from_hugging_face(tmp_path, "bfloat16").dtype == "bfloat16"
    with pytest.raises(ConfigError, match="dtype is `int8`"):
        MistralConfig.from_hugging_face(tmp_path, "int8")


def test_a_value_that_the_port_has_not_built_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`hidden_act` is 'gelu', the port was written for 'silu'"):
        MistralConfig.from_hugging_face(write(tmp_path, hidden_act="gelu"))


def test_a_config_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`sliding_window` is missing"):
        MistralConfig.from_hugging_face(write(tmp_path, model_type="llama", num_attention_heads=4))
    with pytest.raises(ConfigError, match="not a multiple of the number of attention heads"):
        MistralConfig.from_hugging_face(write(tmp_path, model_type="llama", num_attention_heads=5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no `config.json`"),
        ("{", "cannot be read"),
        ("[]", "it holds a list, expected an object"),
        ("{}", "has no `model_type`"),
        ('{"model_type": "no-such-model"}', "no-such-model"),
        ('{"model_type": "vit", "architectures": null, "hidden_act": "silu"}', "`architecture` is missing"),
    ],
)
def test_a_directory_that_is_no_model(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        MistralConfig.from_hugging_face(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([("z", "F16"), ("a", "F32")], "float32"),  # by name, not by place
        ([("b", "I64"), ("a", "F8_E4M3"), ("c", "BF16"), ("d", "F32")], "bfloat16"),
        ([("a", "I64")], "float32"),
    ],
)
def test_auto_takes_the_type_that_transformers_takes(
    tmp_path: Path, tensors: list[tuple[str, str]], expected: str
) -> None:
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "F8_E4M3": 1}
    header, end = {}, 0
    for name, dtype in tensors:
        header[name] = {"dtype": dtype, "shape": [1], "data_offsets": [end, end + sizes[dtype]]}
        end += sizes[dtype]
    text = json.dumps(header).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    assert MistralConfig.from_hugging_face(write(tmp_path)).dtype == expected
    if "I64" not in dict(tensors).values():  # which no model of transformers can be of
        found = get_state_dict_dtype(load_state_dict(file, map_location="meta"))
        assert str(found) == f"torch.{expected}"


def test_auto_asks_the_first_shard_or_the_index(tmp_path: Path) -> None:
    write(tmp_path)
    save_file({"z": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"a": torch.zeros(1).half()}, tmp_path / "model-2.safetensors")
    index: dict[str, Any] = {"weight_map": {"a": "model-2.safetensors", "z": "model-1.safetensors"}}
    for metadata, expected in (({}, "float32"), ({"dtype": "bfloat16"}, "bfloat16")):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index | {"metadata": metadata}))
        assert MistralConfig.from_hugging_face(tmp_path).dtype == expected


def test_auto_does_not_turn_double_precision_into_another(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1).double(), "b": torch.zeros(1)}, write(tmp_path) / "model.safetensors")
    with pytest.raises(ConfigError, match="dtype is `float64`"):
        MistralConfig.from_hugging_face(tmp_path)
    assert MistralConfig.from_hugging_face(tmp_path, "float32").dtype == "float32"


def test_dicts_come_back(tmp_path: Path) -> None:
    config = MistralConfig.from_hugging_face(write(tmp_path), mapping=Mapping(tp_size=2, rank=1))
    values = json.loads(json.dumps(config.to_dict()))
    assert MistralConfig.from_dict(values) == config
    del values["vocab_size"]
    with pytest.raises(ConfigError, match="unknown `hidden_sice`, missing `vocab_size`"):
        MistralConfig.from_dict({**values, "hidden_sice": 3})
    with pytest.raises(ConfigError, match="`mapping` is None"):
        MistralConfig.from_dict({**config.to_dict(), "mapping": None})


@dataclass(frozen=True, kw_only=True)
class Layered(PretrainedConfig):
    layer_types: tuple[str, ...]


def test_lists_become_tuples_where_the_field_says_so() -> None:
    config = Layered(architecture="A", dtype="float32", vocab_size=1, layer_types=("a", "b"))
    assert Layered.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@dataclass(frozen=True, kw_only=True)
class Uniform(PretrainedConfig):
    FIXED: ClassVar[dict[str, Any]] = {"layer_types": Every("full_attention")}


def test_a_built_in_value_for_every_layer(tmp_path: Path) -> None:
    layers = ["full_attention", "full_attention"]
    write(tmp_path, model_type="qwen2", num_hidden_layers=2, layer_types=layers)
    assert Uniform.from_hugging_face(tmp_path).vocab_size > 0
    write(tmp_path, model_type="qwen2", num_hidden_layers=2, layer_types=[*layers[:1], "sliding_attention"])
    with pytest.raises(ConfigError, match="`layer_types` is") as caught:
        Uniform.from_hugging_face(tmp_path)
    assert "written for a list of 'full_attention' in every place" in caught.value.message
    assert "Every" not in caught.value.message


@dataclass(frozen=True, kw_only=True)
class Proven(PretrainedConfig):
    FIXED: ClassVar[dict[str, Any]] = {
        "hidden_act": OneOf("silu", "gelu"),
        "rope_parameters.rope_type": OneOf("default", "linear"),
        "rope_parameters.alpha": None,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, None),
        ({"hidden_act": "gelu"}, None),
        ({"hidden_act": "relu"}, "`hidden_act` is 'relu', the port was written for 'silu' or 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, None),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "`rope_parameters.rope_type` is 'dynamic', the port was written for 'default' or 'linear'",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "alpha": 1000.0}},
            "`rope_parameters.alpha` is 1000.0, the port was written for None",
        ),
    ],
)
def test_values_that_were_proven(values: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    write(tmp_path, model_type="qwen2", **values)
    if message is None:
        assert Proven.from_hugging_face(tmp_path).vocab_size > 0
        return
    with pytest.raises(ConfigError) as caught:
        Proven.from_hugging_face(tmp_path)
    assert caught.value.message == message


def test_parameters_of_every_type_of_layer() -> None:
    assert parameter_sets({"a": {"x": 1}, "b": {"x": 2}}) == [{"x": 1}, {"x": 2}]
    assert parameter_sets({"x": 1, "y": {"z": 2}}) == [{"x": 1, "y": {"z": 2}}]
    assert parameter_sets(None) == []


@dataclass(frozen=True, kw_only=True)
class DbrxConfig(PretrainedConfig):
    ffn_config: dict[str, Any]


def test_a_config_within_a_config_is_a_dict(tmp_path: Path) -> None:
    values = {"model_type": "dbrx", "ffn_config": {"moe_top_k": 3}, "architectures": ["DbrxForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = DbrxConfig.from_hugging_face(tmp_path, dtype="float32")
    assert config.ffn_config["moe_top_k"] == 3
    assert config.ffn_config["moe_num_experts"] == 4  # the class's default
    assert DbrxConfig.from_dict(config.to_dict()).ffn_config == config.ffn_config
