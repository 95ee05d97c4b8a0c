"""Rules for operations that change shapes, take parts, join and repeat."""

from __future__ import annotations

from typing import Any

import torch

from trtllm_port.codegen.ir.record import Literal, Operation, Value
from trtllm_port.codegen.rules.base import Result, RuleTable, argument, node, numbers, shape_of, unchanged

SHAPES = RuleTable()


@SHAPES.rule("view", "reshape", "unflatten", "view_as", "reshape_as")
def _view(operation: Operation) -> Result:
    source, dims = operation.args[0], tuple(operation.outputs[0].tensor.shape)
    if isinstance(source, Value) and source.tensor.shape == dims:
        return source
    given = numbers(operation, "shape") if operation.name in ("view", "reshape") else ()
    inferred = given.index(-1) if -1 in given and len(given) == len(dims) else None
    return node(operation, "method", "view", source, dims, inferred=inferred)


@SHAPES.rule("expand", "expand_as", "broadcast_to")
def _expand(operation: Operation) -> Result:
    source, dims = operation.args[0], tuple(operation.outputs[0].tensor.shape)
    if isinstance(source, Value) and source.tensor.shape == dims:
        return source
    return node(operation, "method", "expand", source, dims)


@SHAPES.rule("repeat")
def _repeat(operation: Operation) -> Result:
    """Printed as `expand` where all that is repeated has the size 1 at every traced size."""
    source, repeats = operation.args[0], numbers(operation, "repeats")
    if len(repeats) != len(shape_of(source) or ()):
        return None
    dims = tuple(operation.outputs[0].tensor.shape)
    return unchanged(operation) or node(operation, "method", "repeat", source, dims, repeats)


@SHAPES.rule("transpose", "swapaxes", "swapdims")
def _transpose(operation: Operation) -> Result:
    dims = argument(operation, "dim0", 1), argument(operation, "dim1", 2)
    return node(operation, "method", "transpose", operation.args[0], *dims)


@SHAPES.rule("t", "T", "mT")
def _matrix_transpose(operation: Operation) -> Result:
    return node(operation, "method", "transpose", operation.args[0], -2, -1)


@SHAPES.rule("permute")
def _permute(operation: Operation) -> Result:
    return node(operation, "method", "permute", operation.args[0], *numbers(operation, "dims"))


@SHAPES.rule("movedim", "moveaxis")
def _movedim(operation: Operation) -> Result:
    ndim = operation.outputs[0].tensor.ndim
    start, end = argument(operation, "source", 1), argument(operation, "destination", 2)
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    order = [dim for dim in range(ndim) if dim != start % ndim]
    order.insert(end % ndim, start % ndim)
    return node(operation, "method", "permute", operation.args[0], *order)


@SHAPES.rule("unsqueeze")
def _unsqueeze(operation: Operation) -> Result:
    return node(operation, "method", "unsqueeze", operation.args[0], argument(operation, "dim", 1))


@SHAPES.rule("squeeze")
def _squeeze(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1)
    if dim is None:
        shape = shape_of(operation.args[0]) or ()
        ones = [i for i, size in enumerate(shape) if size == 1]
        dim = ones[0] if len(ones) == 1 else None
    return node(operation, "method", "squeeze", operation.args[0], dim) if isinstance(dim, int) else None


@SHAPES.rule("flatten")
def _flatten(operation: Operation) -> Result:
    bounds = argument(operation, "start_dim", 1, 0), argument(operation, "end_dim", 2, -1)
    return unchanged(operation) or node(operation, "method", "flatten", operation.args[0], *bounds)


@SHAPES.rule("cat", "concat", "concatenate", "stack")
def _join(operation: Operation) -> Result:
    tensors, dim = argument(operation, "tensors", 0), argument(operation, "dim", 1, 0)
    return node(operation, "function", "stack" if operation.name == "stack" else "concat", tuple(tensors), dim=dim)


@SHAPES.rule("split", "split_with_sizes")
def _split(operation: Operation) -> Result:
    sizes = argument(operation, "split_size_or_sections", 1, operation.kwargs.get("split_size"))
    sizes = tuple(sizes) if isinstance(sizes, tuple | list) else sizes
    return node(operation, "method", "split", operation.args[0], sizes, dim=argument(operation, "dim", 2, 0))


@SHAPES.rule("chunk")
def _chunk(operation: Operation) -> Result:
    dim = argument(operation, "dim", 2, 0)
    return node(operation, "method", "chunk", operation.args[0], argument(operation, "chunks", 1), dim=dim)


@SHAPES.rule("unbind")
def _unbind(operation: Operation) -> Result:
    return node(operation, "method", "unbind", operation.args[0], argument(operation, "dim", 1, 0))


@SHAPES.rule("repeat_interleave")
def _repeat_interleave(operation: Operation) -> Result:
    repeats, dim = argument(operation, "repeats", 1), argument(operation, "dim", 2)
    if not isinstance(repeats, int) or dim is None:
        return None
    return unchanged(operation) or node(operation, "function", "repeat_interleave", operation.args[0], repeats, dim=dim)


@SHAPES.rule("getitem")
def _index(operation: Operation) -> Result:
    index: Any = operation.args[1]
    if _everywhere(index):
        return _flattened(operation, operation.args[0], index)
    items = tuple(_kept(item) for item in (index if isinstance(index, tuple) else (index,)))
    if any(isinstance(item, list | bool | Literal) for item in items):
        return None
    return unchanged(operation) or node(operation, "index", "", operation.args[0], items)


@SHAPES.rule("setitem")
def _write(operation: Operation) -> Result:
    """What is written by a constant mask that covers everything, or nothing."""
    target, index, source = operation.args
    if isinstance(index, Literal) and index.tensor.dtype == torch.bool and not bool(index.tensor.any()):
        return target if isinstance(target, Value) else None
    fits = isinstance(source, Value) and source.tensor.dtype == operation.outputs[0].tensor.dtype
    return _flattened(operation, source, index) if fits and _everywhere(index) else None


def _everywhere(index: Any) -> bool:
    return isinstance(index, Literal) and index.tensor.dtype == torch.bool and bool(index.tensor.all())


def _flattened(operation: Operation, source: Any, index: Literal) -> Result:
    """All of a tensor, where a mask has one dimension: with more, what it chooses has another shape."""
    same = isinstance(source, Value) and source.tensor.shape == operation.outputs[0].tensor.shape
    return source if same and index.tensor.ndim == 1 else None


def _kept(item: Any) -> Any:
    """The part that a list of neighbours chooses, as a slice; any other item as it is."""
    if not isinstance(item, list) or not item or not all(type(number) is int for number in item):
        return item
    first, last = item[0], item[-1]
    if item != [*range(first, last + 1)] or first < 0 <= last:
        return item
    return slice(first, None if last == -1 else last + 1)


@SHAPES.rule("index_select")
def _index_select(operation: Operation) -> Result:
    dim, index = argument(operation, "dim", 1), argument(operation, "index", 2)
    return node(operation, "function", "index_select", operation.args[0], dim, index)


@SHAPES.rule("narrow")
def _narrow(operation: Operation) -> Result:
    dim, start, length = (argument(operation, name, i + 1) for i, name in enumerate(("dim", "start", "length")))
    dim %= operation.outputs[0].tensor.ndim
    items = (*([slice(None)] * dim), slice(start, start + length))
    return node(operation, "index", "", operation.args[0], items)


@SHAPES.rule("select")
def _select(operation: Operation) -> Result:
    dim, index = argument(operation, "dim", 1), argument(operation, "index", 2)
    dim %= operation.outputs[0].tensor.ndim + 1
    return node(operation, "index", "", operation.args[0], (*([slice(None)] * dim), index))
