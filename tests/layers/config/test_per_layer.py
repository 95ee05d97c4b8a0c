"""Configs whose layers differ, against transformers' own view of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import transformers

from trtllm_port.errors import ConfigError
from trtllm_port.layers import PretrainedConfig
from trtllm_port.layers.config.per_layer import as_arguments, config_value, per_layer_keys, plain_values

SIZES = [16, 32, 16, 48]


@dataclass(frozen=True, kw_only=True)
class ListConfig(PretrainedConfig):
    head_dim: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OneConfig(PretrainedConfig):
    head_dim: int


@dataclass(frozen=True, kw_only=True)
class FixedConfig(PretrainedConfig):
    FIXED: ClassVar[dict[str, Any]] = {"head_dim": 16}


def llama(**values: Any) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"], num_hidden_layers=4, head_dim=16, num_key_value_heads=2, **values
    )


@pytest.fixture
def mixed() -> transformers.LlamaConfig:
    return llama(per_layer_config={1: {"head_dim": 32}, 3: {"head_dim": 48, "num_key_value_heads": 4}})


def test_a_key_that_differs_is_a_list_of_the_layers_values(mixed: Any) -> None:
    assert per_layer_keys(mixed) == ("head_dim", "num_key_value_heads")
    values = plain_values(mixed)
    assert values["head_dim"] == [layer.head_dim for layer in mixed.per_layer_config] == SIZES
    assert values["num_key_value_heads"] == [2, 2, 2, 4]
    assert "per_layer_config" not in values
    assert config_value(mixed, "head_dim") == SIZES
    assert config_value(mixed, "hidden_size") == mixed.hidden_size
    assert plain_values(llama())["head_dim"] == 16


def test_a_config_made_of_the_values_has_the_same_layers(mixed: Any) -> None:
    again = transformers.LlamaConfig(**as_arguments(plain_values(mixed), per_layer_keys(mixed)))
    assert [layer.to_dict() for layer in again.per_layer_config] == [x.to_dict() for x in mixed.per_layer_config]
    assert as_arguments(plain_values(llama()), ()) == plain_values(llama())


def test_a_port_s_field_is_the_list(mixed: Any, tmp_path: Path) -> None:
    mixed.save_pretrained(tmp_path)
    assert ListConfig.from_hugging_face(tmp_path).head_dim == tuple(SIZES)


@pytest.mark.parametrize(
    ("port", "alike", "problem"),
    [
        (OneConfig, False, "`head_dim` is a list, and the port was written for one value"),
        (ListConfig, True, "`head_dim` is one value, and the port was written for a list"),
        (FixedConfig, False, r"`head_dim` is \[16, 32, 16, 48\], the port was written for 16"),
    ],
)
def test_a_model_that_a_port_was_not_written_for_is_refused(
    port: type[PretrainedConfig], alike: bool, problem: str, mixed: Any, tmp_path: Path
) -> None:
    (llama() if alike else mixed).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        port.from_hugging_face(tmp_path)
