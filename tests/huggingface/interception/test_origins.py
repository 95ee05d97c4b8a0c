"""The arithmetic that made the numbers which modules keep."""

from __future__ import annotations

import ast
import copy
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from trtllm_port.huggingface.compatibility.config_classes import prepare_config_class
from trtllm_port.huggingface.interception.origins import numbers_that_tell, take_origins
from trtllm_port.huggingface.loading import make_model

SOURCE = """
import math

import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel


class CountedConfig(LlamaConfig):
    model_type = "counted"
    attribute_map = {"width": "hidden_size"}


def falls(number):
    return 0.8 - 0.6 * math.exp(-0.3 * number)


class Block(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.inner = int(config.width * 1.5) - 2
        self.scale = 1.0 / math.sqrt(config.hidden_size // config.num_attention_heads)
        self.start = falls(layer_idx)
        self.factor = config.rope_parameters.get("factor", 3) * 2
        self.older = config.rope_scaling["factor"] * 3
        self.absent = config.rope_parameters.get("nothing", 3) * 2
        self.sizes = [config.hidden_size, 2 * config.hidden_size]
        self.is_whole = isinstance(config.hidden_size, int) and not isinstance(config.hidden_size, float)
        self.table = torch.arange(config.hidden_size) / config.hidden_size
        self.more = max(config.hidden_size, config.vocab_size) if config.vocab_size > 3 else 0
        self.proj = nn.Linear(config.hidden_size, self.inner)
        config.written = config.hidden_size + 1


class CountedForCausalLM(PreTrainedModel):
    config_class = CountedConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList([Block(config, layer_idx) for layer_idx in range(config.num_hidden_layers)])
        self.post_init()
"""


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "modeling_counted.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("modeling_counted", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["modeling_counted"] = module
    spec.loader.exec_module(module)
    prepare_config_class(module.CountedConfig)
    AutoModelForCausalLM.register(module.CountedConfig, module.CountedForCausalLM, exist_ok=True)
    yield module
    del sys.modules["modeling_counted"]


@pytest.fixture
def config(counted: Any) -> LlamaConfig:
    made: LlamaConfig = counted.CountedConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=31,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    )
    return made


@pytest.fixture
def model(config: LlamaConfig) -> nn.Module:
    with numbers_that_tell(config):
        made: nn.Module = make_model(config)
    return made


@pytest.fixture
def told(model: nn.Module) -> dict[str, str]:
    origins = take_origins(model)
    return {name: ast.unparse(origin) for name, origin in origins[model.layers[1]].items()}  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inner", "int(config.hidden_size * 1.5) - 2"),
        ("scale", "1.0 / math.sqrt(config.hidden_size // config.num_attention_heads)"),
        ("start", "0.8 - 0.6 * math.exp(-0.3 * layer_idx)"),
        ("factor", "config.rope_parameters['factor'] * 2"),
        ("older", "config.rope_parameters['factor'] * 3"),  # as such a file spells it
        ("more", "max(config.hidden_size, config.vocab_size)"),
    ],
)
def test_what_was_done_to_keys_is_told(told: dict[str, str], name: str, text: str) -> None:
    assert told[name] == text


def test_what_does_not_come_from_the_config_is_not(told: dict[str, str]) -> None:
    assert "absent" not in told
    assert "is_whole" not in told


def test_basic_layers_tell_their_sizes(model: nn.Module) -> None:
    layer: Any = model.layers[0]  # type: ignore[index, union-attr]
    assert ast.unparse(take_origins(model)[layer.proj]["in_features"]) == "config.hidden_size"


def test_the_model_is_the_same_as_without(model: nn.Module, config: LlamaConfig) -> None:
    take_origins(model)
    kept, usual = (vars(made.layers[1]) for made in (model, make_model(config)))  # type: ignore[index, union-attr]
    for name in ("inner", "scale", "start", "factor", "absent", "is_whole", "sizes", "more"):
        assert kept[name] == usual[name]
        assert type(kept[name]) is type(usual[name])
    assert kept["table"].equal(usual["table"])
    assert all(type(size) is int for size in kept["sizes"])


def test_nothing_is_left_in_the_file_or_the_config(counted: Any, config: LlamaConfig) -> None:
    before = dict(vars(counted)), counted.falls.__code__
    with numbers_that_tell(config):
        make_model(config)
    assert dict(vars(counted)) == before[0]
    assert counted.falls.__code__ is before[1]
    assert type(config.hidden_size) is int
    assert type(copy.deepcopy(config).written) is int
