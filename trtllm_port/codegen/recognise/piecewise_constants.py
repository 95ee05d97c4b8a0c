"""Constant vectors of a few parts, each with one number: what a model scales parts of a projection by."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trtllm_port.codegen.ir.dtypes import TRACE_DTYPE
from trtllm_port.codegen.ir.expressions import Rounded
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Attribute, Operation, Value
from trtllm_port.foundation.words import words

MOST = 8  # parts
SCALING = words("add sub mul multiply div divide true_divide truediv")


def parts_of(tensor: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    """The numbers and sizes of the parts of a tensor [1, …, N] of floating-point numbers; None if it has not a few."""
    if not tensor.is_floating_point() or tensor.numel() != tensor.shape[-1]:
        return None
    values, counts = tensor.flatten().unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]  # torch
    if not 1 < len(values) <= MOST or len(values) == tensor.numel():
        return None
    return tuple(values.tolist()), tuple(counts.tolist())


def replace_piecewise_constant(block: Block, operation: Operation, content: Any) -> Operation:
    """An operation on a tensor and a buffer that no checkpoint holds, with a function of the port in its place.

    Args:
        block: gets the function's node.
        operation: any.
        content: argument → the constant that it is, or None.
    """
    tensors = [arg for arg in operation.args if isinstance(arg, Value)]
    if operation.name not in SCALING or len(tensors) != 1 or len(operation.args) != 2:
        return operation
    like, args = tensors[0], list(operation.args)
    place = 1 - args.index(like)
    constant = content(args[place]) if isinstance(args[place], Attribute) else None
    if constant is None or constant.dtype != like.tensor.dtype or constant.shape[-1:] != like.tensor.shape[-1:]:
        return operation
    found = parts_of(constant)
    if found is None:
        return operation
    values, sizes = found
    numbers = tuple(Rounded(value) for value in values) if constant.dtype == TRACE_DTYPE else values
    args[place] = Value(constant.flatten())
    made = Node("function", "parts_like", (like, numbers, sizes), {}, (args[place],), operation.location)
    block.nodes.append(made)
    return Operation(operation.name, tuple(args), operation.kwargs, operation.outputs, operation.location)
