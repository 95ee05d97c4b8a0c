"""Tables that a model looks up once for all rows: in a port every row has positions of its own."""

from __future__ import annotations

import torch

from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.recognise.batch_rows import BatchRows

ROWS, LENGTH = 3, 5
TABLE = torch.randn(LENGTH, 8, generator=torch.Generator().manual_seed(0))


def looked_up(rows: BatchRows) -> Value:
    value = Value(TABLE)
    rows.add(value)
    return value


def test_a_dimension_is_added_once() -> None:
    rows = BatchRows(ROWS)
    value = looked_up(rows)
    rows.add(value)
    assert value.tensor.shape == (ROWS, LENGTH, 8)
    out = Value(TABLE[None])
    assert rows.unchanged(Operation("unsqueeze", (value, 0), {}, (out,), None)) is value
    assert rows.unchanged(Operation("unsqueeze", (value, 1), {}, (out,), None)) is None


def test_indexing_keeps_the_rows() -> None:
    rows = BatchRows(ROWS)
    value = looked_up(rows)
    out = Value(TABLE[None, None])
    made = rows.operation(Operation("__getitem__", (value, (None, None, slice(None))), {}, (out,), None))
    assert torch.equal(value.tensor[made.args[1]], out.tensor)
    assert out.tensor.shape == (ROWS, 1, LENGTH, 8)


def test_what_follows_has_all_rows() -> None:
    rows = BatchRows(ROWS)
    value = looked_up(rows)
    four, pair = Value(TABLE[None, None]), Value(torch.stack([TABLE, TABLE], -1)[None, None])
    rows.operation(Operation("__getitem__", (value, (None, None)), {}, (four,), None))
    rows.operation(Operation("stack", ([four, four],), {"dim": -1}, (pair,), None))
    assert pair.tensor.shape == (ROWS, 1, LENGTH, 8, 2)
    other = Value(TABLE.sum().reshape(1, 1))
    rows.operation(Operation("sum", (four,), {}, (other,), None))
    assert other.tensor.shape == (1, 1)
