"""Numbers as expressions: the shortest one that fits every instance, and none that fits by chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtllm_port.codegen.ir.expressions import Rounded
from trtllm_port.codegen.solve.solver import Solver

ATOMS: dict[str, tuple[Any, ...]] = {
    "config.hidden_size": (64, 144, 120, 256),
    "config.num_heads": (4, 6, 6, 8),
    "config.num_kv_heads": (2, 2, 3, 4),
    "config.head_dim": (24, 32, 40, 16),
    "config.factor": (0.25, 0.75, 0.4, 0.5),
    "config.num_layers": (4, 4, 4, 4),
    "config.bias": (True, False, True, False),
    "config.inner": (None, 100, None, 90),
    "layer_idx": (0, 1, 2, 3),
}


@pytest.mark.parametrize(
    "text",
    [
        "config.hidden_size",
        "3 * config.hidden_size",
        "config.hidden_size // config.num_heads",
        "config.num_heads * config.head_dim",
        "config.head_dim**-0.5",
        "(config.hidden_size // config.num_heads) ** -0.5",
        "int(config.head_dim * config.factor)",
        "(config.num_heads + 2 * config.num_kv_heads) * config.head_dim",
        "config.head_dim**-0.5 / (layer_idx + 1)",
        "config.inner or 4 * config.hidden_size",
        "config.head_dim**-0.5 if config.bias else 1.0",
        "not config.bias",
        "1 - config.factor",
        "(config.hidden_size / (config.hidden_size + 1)) ** 0.5",
    ],
)
def test_an_expression_is_found_again(text: str) -> None:
    names = [name.removeprefix("config.") for name in ATOMS]
    values = []
    for instance in range(4):
        scope = {name: column[instance] for name, column in zip(names, ATOMS.values(), strict=True)}
        values.append(eval(text.replace("config.", ""), {}, scope))
    found = Solver(ATOMS).solve(tuple(values))
    assert found is not None
    assert found.values == pytest.approx(tuple(values))
    assert len(found.text) <= len(text)


def test_nothing_is_added_to_itself() -> None:
    found = Solver(ATOMS).solve((1, 3, 5, 7))
    assert found is not None
    assert found.text == "2 * layer_idx + 1"


def test_what_follows_from_nothing_is_not_expressed() -> None:
    assert Solver(ATOMS).solve((17, 311, 98, 1003)) is None
    assert Solver(ATOMS).solve(("a", "b", "a", "b")) is None


def test_a_key_that_never_changed_is_not_used_in_arithmetic() -> None:
    found = Solver(ATOMS).solve(tuple(4 * size for size in ATOMS["config.hidden_size"]))
    assert found is not None
    assert found.text == "4 * config.hidden_size"


def test_a_number_that_went_through_half_precision_is_recognised() -> None:
    roots = torch.tensor(ATOMS["config.hidden_size"]).sqrt().to(torch.bfloat16)
    values = tuple(Rounded(root) for root in roots.tolist())
    found = Solver(ATOMS).solve(values)
    assert found is not None
    assert found.text == "config.hidden_size**0.5"


def test_an_integer_is_not_expressed_by_a_float() -> None:
    found = Solver({"config.a": (2.0, 4.0), "config.b": (2, 4)}).solve((2, 4))
    assert found is not None
    assert found.text == "config.b"
