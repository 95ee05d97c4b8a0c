"""Rules for what chooses experts: greatest values, masks of chosen groups, sums over experts."""

from __future__ import annotations

from trtllm_port.codegen.ir.record import Operation
from trtllm_port.codegen.rules.base import Result, RuleTable, argument, is_tensor, node

ROUTING = RuleTable()


@ROUTING.rule("combine_experts")
def _combine_experts(operation: Operation) -> Result:
    return node(operation, "function", "combine_experts", *operation.args)


@ROUTING.rule("topk")
def _topk(operation: Operation) -> Result:
    if argument(operation, "largest", 3, True) is not True:
        return None
    k, dim = argument(operation, "k", 1), argument(operation, "dim", 2, -1)
    return node(operation, "function", "topk", operation.args[0], k, dim=dim)


@ROUTING.rule("max", "min")
def _extremum(operation: Operation) -> Result:
    """Values and positions along a dimension; or the greater, or smaller, of two tensors."""
    if len(operation.args) == 2 and is_tensor(operation.args[1]):
        return node(operation, "function", f"{operation.name}imum", *operation.args)
    dim = argument(operation, "dim", 1)
    if not isinstance(dim, int) or not argument(operation, "keepdim", 2, False):
        return None
    options = {} if operation.name == "max" else {"largest": False}
    return node(operation, "function", "topk", operation.args[0], 1, dim=dim, **options)


@ROUTING.rule("gather")
def _gather(operation: Operation) -> Result:
    dim, index = argument(operation, "dim", 1), argument(operation, "index", 2)
    return node(operation, "function", "gather", operation.args[0], dim, index)


@ROUTING.rule("scatter")
def _scatter(operation: Operation) -> Result:
    dim, index = argument(operation, "dim", 1), argument(operation, "index", 2)
    updates = operation.kwargs.get("value", argument(operation, "src", 3))
    return node(operation, "function", "scatter", operation.args[0], dim, index, updates)


@ROUTING.rule("zeros_like", "ones_like", "full_like")
def _like(operation: Operation) -> Result:
    values = {"zeros_like": 0.0, "ones_like": 1.0}
    value = values.get(operation.name, argument(operation, "fill_value", 1))
    given, made = operation.args[0], operation.outputs[0].tensor
    if is_tensor(value) or not hasattr(given, "tensor") or given.tensor.dtype != made.dtype:
        return None
    return node(operation, "function", "full_like", given, value if made.is_floating_point() else int(value))


@ROUTING.rule("one_hot")
def _one_hot(operation: Operation) -> Result:
    classes = argument(operation, "num_classes", 1, -1)
    return node(operation, "function", "one_hot", operation.args[0], classes) if classes > 0 else None
