"""What torch's operations do to their operands: promotion to one data type, which TensorRT does not, broadcasting."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from trtllm_port.codegen.ir.dtypes import DTYPES
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Attribute, Literal, Operation, Value
from trtllm_port.codegen.recognise.constants import stored_tensor

REDUCTIONS = ("sum", "mean", "cumsum")
EXPANDING = ("expand", "repeat")


def cast_first(block: Block, operation: Operation) -> Operation:
    """A reduction without its argument `dtype`: what it reduces is cast before."""
    dtype, source = operation.kwargs.get("dtype"), operation.args[0] if operation.args else None
    if operation.name not in REDUCTIONS or dtype not in DTYPES or not isinstance(source, Value):
        return operation
    rest = {key: value for key, value in operation.kwargs.items() if key != "dtype"}
    if source.tensor.dtype == dtype:
        return replace(operation, kwargs=rest)
    cast = Value(source.tensor.to(dtype))
    block.nodes.append(Node("cast", DTYPES[dtype], (source,), {}, (cast,), operation.location))
    return replace(operation, args=(cast, *operation.args[1:]), kwargs=rest)


def promote(block: Block, operator: Node, model: nn.Module) -> Node:
    """An operator whose operands are of one data type; the casts are appended to the block."""
    typed: dict[Any, torch.Tensor] = {arg: arg.tensor for arg in operator.args if isinstance(arg, Value)}
    stored = (arg for arg in operator.args if isinstance(arg, Attribute) and arg.persistent)
    typed |= {arg: stored_tensor(model, arg.path) for arg in stored}
    dtypes = {tensor.dtype for tensor in typed.values()}
    comparison = operator.outputs[0].tensor.dtype == torch.bool
    if len(dtypes) < 2 and (comparison or dtypes == {operator.outputs[0].tensor.dtype} or not dtypes):
        return operator
    target = operator.outputs[0].tensor.dtype
    if comparison:
        target = max(dtypes, key=lambda dtype: (dtype.is_floating_point, dtype.itemsize))
    if target not in DTYPES:
        return operator
    args = []
    for arg in operator.args:
        if isinstance(arg, Value | Attribute) and arg in typed and typed[arg].dtype != target:
            cast = Value(typed[arg].to(target))
            block.nodes.append(Node("cast", DTYPES[target], (arg,), {}, (cast,), operator.location))
            arg = cast
        args.append(arg)
    return replace(operator, args=tuple(args))


def without_expansions(block: Block, operator: Node) -> Node:
    """An operator without an `expand` of its operands, where it broadcasts them as well."""
    if operator.name == "@":
        return operator
    shape = tuple(operator.outputs[0].tensor.shape)
    made = {value: node.args[0] for node in block.nodes if node.name in EXPANDING for value in node.outputs}
    args = list(operator.args)
    for i, arg in enumerate(args):
        source = made.get(arg) if isinstance(arg, Value) else None
        rest = [_shape(other) for other in (source, *args[:i], *args[i + 1 :])]
        if source is not None and _broadcast(rest) == shape:
            args[i] = source
    return replace(operator, args=tuple(args))


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that operands broadcast to; None if they do not: what is repeated may have been more than one."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def _shape(arg: Any) -> tuple[int, ...]:
    if isinstance(arg, Attribute):
        return arg.shape
    return tuple(arg.tensor.shape) if isinstance(arg, Value | Literal) else ()


def promote_rotation(block: Block, operation: Operation) -> Operation:
    """A rotation of values and tables of one data type, the widest of theirs, as torch computes it."""
    tensors = [arg.tensor for arg in operation.args]
    wide = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if wide not in DTYPES or operation.outputs[0].tensor.dtype != wide:
        return operation
    args = []
    for arg in operation.args:
        if arg.tensor.dtype != wide:
            cast = Value(arg.tensor.to(wide))
            block.nodes.append(Node("cast", DTYPES[wide], (arg,), {}, (cast,), operation.location))
            arg = cast
        args.append(arg)
    return replace(operation, args=tuple(args))
