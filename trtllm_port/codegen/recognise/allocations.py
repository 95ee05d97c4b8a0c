"""Tensors that are allocated and filled part by part: the parts, joined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.rules.base import node
from trtllm_port.codegen.rules.translation import canonical_name, translate
from trtllm_port.foundation.words import words

ALLOCATIONS = words("new_empty empty_like")


@dataclass
class Allocations:
    """Follows allocated tensors until all of them is written.

    Attributes:
        parts: a tensor that is allocated → what was written: (dimension, start, stop, value).
    """

    parts: dict[Value, tuple[tuple[int, int, int, Any], ...]] = field(default_factory=dict)

    def joined(self, block: Block, operation: Operation) -> Node | None:
        """The join that an operation completes; None for every other operation."""
        name = canonical_name(operation.name)[0]
        if name in ALLOCATIONS:
            self.parts[operation.outputs[0]] = ()
        target = operation.args[0] if operation.args else None
        if name != "setitem" or not isinstance(target, Value) or target not in self.parts:
            return None
        part = _part(operation)
        if part is None:
            return None
        written = self.parts[operation.outputs[0]] = (*self.parts[target], part)
        return _join(block, operation, sorted(written, key=lambda part: part[:3]))

    def overwritten(self, block: Block, operation: Operation) -> Node | None:
        """The join that a write into a part of a computed tensor makes; None for every other operation."""
        target = operation.args[0] if operation.args else None
        is_write = canonical_name(operation.name)[0] == "setitem" and isinstance(target, Value)
        part = _part(operation) if is_write and target not in self.parts else None
        if part is None:
            return None
        dim, start, stop, source = part
        size, ndim = operation.outputs[0].tensor.shape[dim], operation.outputs[0].tensor.ndim
        before = [_kept(block, operation, dim, slice(None, start))] if start else []
        behind = [_kept(block, operation, dim, slice(stop, None))] if stop < size else []
        source = _repeated(block, operation, source, dim)
        return node(operation, "function", "concat", (*before, source, *behind), dim=dim - ndim)


def _part(operation: Operation) -> tuple[int, int, int, Any] | None:
    """What is written where, if it is a slice along one dimension, written as it is or repeated along others."""
    target, index, source = operation.args
    shape, items = target.tensor.shape, list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        place = items.index(Ellipsis)
        items[place : place + 1] = [slice(None)] * (len(shape) - len(items) + 1)
    if not all(isinstance(item, slice) and item.step in (None, 1) for item in items):
        return None
    bounds = [item.indices(size)[:2] for item, size in zip(items, shape, strict=False)]
    cut = [dim for dim, (start, stop) in enumerate(bounds) if (start, stop) != (0, shape[dim])]
    if len(cut) != 1 or not isinstance(source, Value) or source.tensor.dtype != target.tensor.dtype:
        return None
    (dim,) = cut
    start, stop = bounds[dim]
    wanted = (*shape[:dim], stop - start, *shape[dim + 1 :])
    given = source.tensor.shape
    fits = len(given) == len(wanted) and given[dim] == wanted[dim]
    alike = fits and all(size in (1, whole) for size, whole in zip(given, wanted, strict=True))
    return (dim, start, stop, source) if alike else None


def _repeated(block: Block, operation: Operation, source: Value, dim: int) -> Value:
    """What is written, as large as the place for it: along other dimensions one element may be written everywhere."""
    sizes = [*operation.outputs[0].tensor.shape]
    sizes[dim] = source.tensor.shape[dim]
    if list(source.tensor.shape) == sizes:
        return source
    asked = [-1 if size == whole else whole for size, whole in zip(source.tensor.shape, sizes, strict=True)]
    wide = Value(source.tensor.expand(sizes), dict(source.names))
    made = translate(Operation("expand", (source, *asked), {}, (wide,), operation.location))
    if isinstance(made, Node):
        block.nodes.append(made)
    return wide


def _kept(block: Block, operation: Operation, dim: int, part: slice) -> Value:
    """A part of what a tensor was before it was written into."""
    target, index = operation.args[0], (*([slice(None)] * dim), part)
    kept = Value(target.tensor[index])
    block.nodes.append(Node("index", "", (target, index), {}, (kept,), operation.location))
    return kept


def _join(block: Block, operation: Operation, parts: list[tuple[int, int, int, Any]]) -> Node | None:
    """The join of parts that cover a tensor along one dimension, without gaps; None if they do not."""
    dim = parts[0][0]
    ends = [0, *(stop for _, _, stop, _ in parts)]
    starts = [*(start for _, start, _, _ in parts), operation.outputs[0].tensor.shape[dim]]
    if ends != starts or any(part[0] != dim for part in parts):
        return None
    from_behind = dim - operation.outputs[0].tensor.ndim
    sources = tuple(_repeated(block, operation, part[3], dim) for part in parts)
    return node(operation, "function", "concat", sources, dim=from_behind)
