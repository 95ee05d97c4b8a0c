"""Rotary tables that a model makes once: recognised by content at two sizes, whatever shape they are in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtllm_port.codegen.ir.dtypes import DTYPES
from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Literal, Operation, Value
from trtllm_port.codegen.recognise.position_tables import PositionTables
from trtllm_port.layers.functional.rope import yarn

THETA = 50000.0


def _tables(length: int, past: int, theta: float = THETA) -> PositionTables:
    sample: Any = SimpleNamespace(batch=2, length=length, past=past, values={"rope_theta": theta, "rope": {"x": 700}})
    return PositionTables(sample, Value(torch.arange(past, past + length).expand(2, -1)))


def _table(length: int, past: int, function: Any = torch.cos, dim: int = 16) -> torch.Tensor:
    frequencies = 1.0 / THETA ** (torch.arange(0, dim, 2).float() / dim)
    return function(torch.arange(past, past + length)[:, None] * frequencies)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("length", "past"), [(11, 6), (17, 0)])
@pytest.mark.parametrize(("function", "name"), [(torch.cos, "rotary_cosines"), (torch.sin, "rotary_sines")])
def test_tables_are_found_in_every_layout(length: int, past: int, function: Any, name: str) -> None:
    once = _table(length, past, function)
    twice, pairs = torch.cat([once, once], -1), once.repeat_interleave(2, -1)
    finder = _tables(length, past)
    for tensor, options, axis in (
        (twice, {}, 0),
        (twice[None, None].bfloat16(), {}, 2),
        (twice[:, None], {}, 0),
        (twice[None].expand(2, -1, -1), {}, 1),
        (pairs, {"interleaved": True}, 0),
        (once, {"once": True}, 0),
    ):
        found = finder.find(tensor)
        assert found is not None
        assert (found.function, found.dim, found.base) == (name, 16, THETA)
        assert (found.options, found.axis) == (options, axis)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 3.0}


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_a_table_of_scaled_frequencies_takes_the_parameters_beside_the_base(factor: float) -> None:
    """The base is the config's own: that within the parameters may be another one."""
    parameters = {**YARN, "attention_factor": factor}
    values = {"rope_theta": THETA, "rope_parameters": parameters, "other": {"rope_type": "dynamic"}}
    sample: Any = SimpleNamespace(batch=2, length=11, past=6, values=values)
    tables = PositionTables(sample, Value(torch.arange(6, 17).expand(2, -1)))
    frequencies, scale = yarn({**parameters, "rope_theta": THETA}, 16, 0)
    assert scale == factor
    found = tables.find(factor * torch.cos(torch.arange(6, 17)[:, None] * frequencies))
    assert found is not None
    assert (found.function, found.base, found.scaling) == ("rotary_cosines", THETA, parameters)
    assert found.options == {"once": True}
    plain = tables.find(_table(11, 6))
    assert plain is not None
    assert plain.scaling is None


def test_other_tensors_are_none() -> None:
    finder, table = _tables(11, 6), _table(11, 6)
    others = (table.flip(0), table.flip(1), table * 1.5, torch.ones(11, 8), table[:-1], _table(11, 0), table.long())
    for other in others:
        assert finder.find(other) is None
    assert _tables(11, 6, theta=900.0).find(table) is None  # of a base that no key of the config has


@pytest.mark.parametrize(
    ("shape", "beside", "expected"),
    [
        ((11, 1, 16), (2, 11, 4, 16), (2, 11, 1, 16)),
        ((1, 1, 11, 16), (2, 4, 11, 16), (2, 1, 11, 16)),
        ((11, 16), (2, 4, 11, 16), (2, 1, 11, 16)),
        ((11, 16), (2, 11, 16), (2, 11, 16)),
    ],
)
def test_an_operation_gets_the_table_of_every_row(
    shape: tuple[int, ...], beside: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    table = _table(11, 6)
    constant = Literal(torch.cat([table, table], -1).reshape(shape).bfloat16())
    block, x = Block("", torch.nn.Module()), Value(torch.randn(beside, dtype=torch.bfloat16))
    product = Operation("mul", (x, constant), {}, (Value(x.tensor * constant.tensor),), None)
    given = _tables(11, 6).given(block, product, constant)
    assert given is not None
    assert tuple(given.tensor.shape) == expected
    assert torch.equal(x.tensor * given.tensor, product.outputs[0].tensor)
    names = [node.name for node in block.nodes]
    assert names[:2] == ["rotary_cosines", DTYPES[torch.bfloat16]]
    assert names[2:] == ["unsqueeze"] * (len(expected) - 3)


def test_an_operation_on_constants_alone_needs_none() -> None:
    constant = Literal(_table(11, 6))
    doubled = Operation("mul", (constant, 2.0), {}, (Value(2 * constant.tensor),), None)
    assert _tables(11, 6).given(Block("", torch.nn.Module()), doubled, constant) is None
