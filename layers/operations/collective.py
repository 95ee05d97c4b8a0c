"""Communication between the ranks of a tensor-parallel group. With one rank no layer is added: TensorRT needs two."""

from __future__ import annotations

from typing import Any

from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import axis
from trtllm_port.layers.operations.shaping import permute

_NO_ROOT = -1


def _collective(operation: str, x: Tensor, mapping: Mapping, kind: Any, reduction: Any) -> Tensor:
    layer = x.network.definition.add_dist_collective(x.itensor, kind, reduction, _NO_ROOT, mapping.tp_group)
    if layer is not None:
        layer.num_ranks = mapping.tp_size
    return x.network.add(operation, layer)


def all_reduce(x: Tensor, mapping: Mapping) -> Tensor:
    """The sum of all ranks' x, on every rank."""
    if mapping.tp_size == 1:
        return x
    trt = x.network.trt
    return _collective("all_reduce", x, mapping, trt.CollectiveOperation.ALL_REDUCE, trt.ReduceOperation.SUM)


def all_gather(x: Tensor, mapping: Mapping, dim: int = -1) -> Tensor:
    """All ranks' x one after the other along dim, on every rank. TensorRT gathers along the first dimension."""
    if mapping.tp_size == 1:
        return x
    trt = x.network.trt
    position = axis(x, dim)
    to_front = [position, *(i for i in range(x.ndim) if i != position)]
    kind, reduction = trt.CollectiveOperation.ALL_GATHER, trt.ReduceOperation.NONE
    gathered = _collective("all_gather", permute(x, to_front), mapping, kind, reduction)
    return permute(gathered, [to_front.index(i) for i in range(x.ndim)])
