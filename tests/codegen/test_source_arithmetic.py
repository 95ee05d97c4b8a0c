"""Hugging Face's own arithmetic, and whether an expression is the same."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from trtllm_port.codegen.solve.source_arithmetic import from_source, of_any_size, same_arithmetic


def origin(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def instances(*origins: str, name: str = "scaling") -> Any:
    """One module each, of a config with other sizes, which keeps a number of that origin."""
    made = []
    for number, text in enumerate(origins):
        module = nn.Module()
        module.inner = nn.Linear(2, 2)
        values = {"hidden_size": 64 + 8 * number, "heads": 4 + number, "rope": {"factor": 2.0 + number}}
        table = {module: {name: origin(text)}, module.inner: {"out_features": origin("3 * config.heads")}}
        trace = SimpleNamespace(sample=SimpleNamespace(values=values), origins=table)
        made.append(SimpleNamespace(block=SimpleNamespace(module=module), layer_idx=number, trace=trace))
    return made


def test_arithmetic_that_all_instances_have_in_common() -> None:
    found = from_source("scaling", instances(*["config.hidden_size * 2 + layer_idx"] * 2), (128, 145), {})
    assert found is not None
    assert found.text == "config.hidden_size * 2 + layer_idx"


def test_not_where_they_were_computed_in_different_ways() -> None:
    assert from_source("scaling", instances("config.hidden_size * 2", "config.heads * 2"), (128, 10), {}) is None


def test_not_where_it_gives_another_value() -> None:
    """A class may change what it keeps after it has computed it."""
    assert from_source("scaling", instances(*["config.heads"] * 2), (4, 6), {}) is None


def test_not_over_what_the_ports_config_lacks() -> None:
    assert from_source("scaling", instances(*["config.other"] * 2), (4, 5), {}) is None


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        (
            "config.heads * (config.rope['factor'] + 1) * (config.rope['factor'] + 1)",
            "config.heads * (config.rope['factor'] + 1) ** 2",
        ),
        ("config.heads ** (-0.5)", "config.heads ** -0.5"),
        ("config.heads * config.heads", "config.heads * config.heads"),
        ("config.hidden_size // config.heads + 1", "self.head_dim + 1"),
    ],
)
def test_as_somebody_would_write_it(text: str, tidied: str) -> None:
    some = instances(text, text)
    values = tuple(eval(text, {"config": SimpleNamespace(**one.trace.sample.values)}) for one in some)
    found = from_source("scaling", some, values, {"head_dim": origin("config.hidden_size // config.heads")})
    assert found is not None
    assert found.text == tidied


def test_any_number_of_a_module_or_one_right_below() -> None:
    found = of_any_size(instances("config.heads", "config.heads"), (12, 15))
    assert found is not None
    assert found.text == "3 * config.heads"
    assert of_any_size(instances("config.heads", "config.heads"), (13, 15)) is None


@pytest.mark.parametrize(
    ("text", "of", "same"),
    [
        ("config.a + 2 * config.b", "config.b + config.a + config.b", True),
        ("(config.a + config.b) * (config.c + 1)", "config.a + 2 * config.b * config.c", False),
        ("config.hidden_size", "config.heads * (config.hidden_size // config.heads)", True),  # sizes divide evenly
        ("self.inner * 2", "2 * config.a", True),
        ("config.a**-0.5", "1 / math.sqrt(config.a)", True),
        ("config.a or config.b", "config.b", None),
        ("self.unknown", "config.b", None),
    ],
)
def test_whether_two_are_the_same(text: str, of: str, same: bool | None) -> None:
    assert same_arithmetic(text, origin(of), {"inner": origin("config.a")}) is same
