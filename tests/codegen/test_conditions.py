"""Truth values as conditions over the config and the layer's number."""

from __future__ import annotations

from typing import Any

import pytest

from trtllm_port.codegen.ir.expressions import MISSING
from trtllm_port.codegen.solve.solver import Solver

KINDS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
SYMBOLS: dict[str, tuple[Any, ...]] = {  # three configurations of four layers
    "config.first_dense": (1,) * 4 + (2,) * 4 + (3,) * 4,
    "config.step": (2,) * 4 + (3,) * 4 + (4,) * 4,
    "config.dense_layers": ([0, 3],) * 4 + ([1],) * 4 + ([],) * 4,
    "config.use_norm": (True,) * 4 + (False,) * 4 + (True,) * 4,
    "config.window": (5,) * 4 + (None,) * 8,
    "config.num_layers": (4,) * 12,
    "layer_idx": (0, 1, 2, 3) * 3,
    "config.layer_types[layer_idx]": (*KINDS, *KINDS[::-1], *KINDS),
    "config.rope_layers[layer_idx]": (1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0),
}


@pytest.mark.parametrize(
    "text",
    [
        "config.use_norm",
        "not config.use_norm",
        "config.rope_layers[layer_idx]",
        "not config.rope_layers[layer_idx]",
        'config.layer_types[layer_idx] == "full_attention"',
        "config.window is not None",
        "layer_idx >= config.first_dense",
        "layer_idx < config.first_dense",
        "layer_idx in config.dense_layers",
        "(layer_idx + 1) % config.step == 0",
        "layer_idx % config.step == 0",
        "layer_idx == config.num_layers - 1",
        "layer_idx >= config.num_layers - config.first_dense",
        "layer_idx < config.num_layers - config.first_dense",
        "config.use_norm and config.rope_layers[layer_idx]",
        "config.use_norm or layer_idx in config.dense_layers",
    ],
)
def test_conditions_are_found(text: str) -> None:
    names = {key.removeprefix("config."): column for key, column in SYMBOLS.items()}
    values = []
    for i in range(12):
        scope = {name: column[i] for name, column in names.items()}
        plain = (
            text.replace("config.", "")
            .replace("layer_types[layer_idx]", "kind")
            .replace("rope_layers[layer_idx]", "rope")
        )
        scope |= {"kind": scope["layer_types[layer_idx]"], "rope": scope["rope_layers[layer_idx]"]}
        values.append(bool(eval(plain, {}, scope)))  # the texts above
    found = Solver(SYMBOLS).solve(tuple(values))
    assert found is not None
    assert found.text == text


def test_what_one_key_tells_is_told_by_it_either_way() -> None:
    """`is not so` in terms of what tells that it is so, though something else is as short."""
    rope = (1, 1, 1, 0) * 2
    atoms = {"config.num_layers": (4,) * 8, "config.rope[layer_idx]": rope, "layer_idx": (0, 1, 2, 3) * 2}
    plain, other = (Solver(atoms).solve(tuple(bool(r) is wanted for r in rope)) for wanted in (True, False))
    assert plain is not None
    assert other is not None
    assert (plain.text, other.text) == ("config.rope[layer_idx]", "not config.rope[layer_idx]")
    lists = {
        "config.num_layers": (4,) * 8,
        "config.kinds[layer_idx]": (2, 2, 2, 0) * 2,
        "layer_idx": atoms["layer_idx"],
    }
    plain, other = (Solver(lists).solve(tuple(bool(r) is wanted for r in rope)) for wanted in (True, False))
    assert plain is not None
    assert other is not None
    assert (plain.text, other.text) == ("config.kinds[layer_idx] > 0", "config.kinds[layer_idx] <= 0")


def test_there_is_no_condition_for_what_the_config_does_not_say() -> None:
    assert Solver({"layer_idx": (0, 1, 2, 3) * 2}).solve((True, False) * 4) is None


def test_instances_without_a_value_do_not_matter() -> None:
    found = Solver(SYMBOLS).solve((True, *[MISSING] * 3, False, *[MISSING] * 3, True, *[MISSING] * 3))
    assert found is not None
    assert found.text == "config.use_norm"
    one = Solver({"config.use_norm": SYMBOLS["config.use_norm"]})
    assert one.solve((True, False, *[MISSING] * 10)) is None


def test_numbers_of_layers_are_not_compared_with_what_a_list_says_of_each() -> None:
    experts = (1, 8, 1, 8)
    atoms = {"layer_idx": (0, 1, 2, 3), "config.experts[layer_idx]": experts, "config.hidden_size": (16, 24, 32, 40)}
    values = tuple(n >= own for n, own in zip(atoms["layer_idx"], experts, strict=True))
    assert values == (False, False, True, False)
    found = Solver(atoms).solve(values)
    assert found is not None
    assert found.text == "layer_idx > 0 and config.experts[layer_idx] <= 1"
