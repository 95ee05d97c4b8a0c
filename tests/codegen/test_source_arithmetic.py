"""Hugging Face's own arithmetic, taken from the source of `__init__`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from torch import nn

from trtllm_port.codegen.solve.source_arithmetic import from_source


def of_depth(number: int) -> float:
    """What falls with the depth."""
    return 0.8 - 0.6 * math.exp(-0.3 * number)


def of_both(number: int) -> float:
    half = number / 2
    return math.log(half + 1)


class Layer(nn.Module):
    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.inner = config.hidden_size * 2 + layer_idx
        self.start = of_depth(layer_idx)
        self.other = of_both(layer_idx)


class Renamed(nn.Module):
    def __init__(self, args: Any, layer_idx: int) -> None:
        super().__init__()
        self.inner = args.hidden_size * 2 + layer_idx


LAYERS = [(Layer(SimpleNamespace(hidden_size=size), i), i, size) for size in (8, 12) for i in range(3)]
INSTANCES: Any = [
    SimpleNamespace(
        block=SimpleNamespace(module=module),
        layer_idx=number,
        trace=SimpleNamespace(sample=SimpleNamespace(values={"hidden_size": size}), config_names={Renamed: "args"}),
    )
    for module, number, size in LAYERS
]


def found(name: str) -> str | None:
    expression = from_source(name, INSTANCES, tuple(getattr(module, name) for module, _, _ in LAYERS))
    return expression and expression.text


def test_arithmetic_over_the_config_and_the_layers_number() -> None:
    assert found("inner") == "config.hidden_size * 2 + layer_idx"


def test_a_function_that_returns_one_expression_is_written_out() -> None:
    assert found("start") == "0.8 - 0.6 * math.exp(-0.3 * layer_idx)"


def test_a_longer_function_is_not() -> None:
    assert found("other") is None


def test_a_constructor_that_calls_the_config_otherwise() -> None:
    made = [Renamed(SimpleNamespace(hidden_size=size), number) for _, number, size in LAYERS]
    instances: Any = [
        SimpleNamespace(**{**vars(one), "block": SimpleNamespace(module=module)})
        for one, module in zip(INSTANCES, made, strict=True)
    ]
    found = from_source("inner", instances, tuple(module.inner for module in made))
    assert found is not None
    assert found.text == "config.hidden_size * 2 + layer_idx"
