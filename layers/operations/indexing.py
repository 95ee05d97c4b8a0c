"""Functions that take or put elements by index tensors."""

from __future__ import annotations

from typing import Any

from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import axis, require
from trtllm_port.layers.definition.tensor_methods import Scalar
from trtllm_port.layers.operations.creation import arange, full_like
from trtllm_port.layers.operations.shaping import unsqueeze
from trtllm_port.layers.operations.unary import cast

INDEX_DTYPES = ("int64", "int32")


def _gather(operation: str, x: Tensor, indices: Tensor, mode: str, **attributes: Any) -> Tensor:
    require(indices, INDEX_DTYPES, operation)
    network = x.network
    layer = network.definition.add_gather_v2(x.itensor, indices.itensor, getattr(network.trt.GatherMode, mode))
    for name, value in attributes.items():
        setattr(layer, name, value)
    return network.add(operation, layer)


def gather(x: Tensor, dim: int, indices: Tensor) -> Tensor:
    """out[i][j] = x[indices[i][j]][j] for dim 0: torch.gather, ONNX GatherElements. Ranks are equal."""
    return _gather("gather", x, indices, "ELEMENT", axis=axis(x, dim))


def index_select(x: Tensor, dim: int, indices: Tensor) -> Tensor:
    """x at `indices` along dim, which is replaced by the dimensions of `indices`: numpy.take, ONNX Gather."""
    return _gather("index_select", x, indices, "DEFAULT", axis=axis(x, dim))


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """x at index tuples, the last dimension of `indices`, after `batch_dims` common dimensions: ONNX GatherND."""
    return _gather("gather_nd", x, indices, "ND", num_elementwise_dims=batch_dims)


def embedding(ids: Tensor, weight: Operand) -> Tensor:
    """Rows of a table.

    Args:
        ids: [*], int64 or int32.
        weight: [rows, size], a parameter or a tensor.

    Returns:
        [*, size].
    """
    network = ids.network
    table = network.operand(weight, network.dtype, 2)
    return _gather("embedding", table, ids, "DEFAULT", axis=0)


def scatter(x: Tensor, dim: int, indices: Tensor, updates: Tensor | Scalar) -> Tensor:
    """x with out[indices[i][j]][j] = updates[i][j] (or one value) for dim 0: torch.scatter, ONNX ScatterElements."""
    require(indices, INDEX_DTYPES, "scatter")
    network = x.network
    if not isinstance(updates, Tensor):
        updates = full_like(indices, updates, dtype=x.dtype)
    mode = network.trt.ScatterMode.ELEMENT
    layer = network.definition.add_scatter(x.itensor, indices.itensor, updates.itensor, mode)
    layer.axis = axis(x, dim)
    return network.add("scatter", layer)


def one_hot(indices: Tensor, num_classes: int) -> Tensor:
    """int64 [*, num_classes]: 1 where an index is, else 0."""
    return cast(unsqueeze(indices, -1) == arange(num_classes, like=indices, dtype=indices.dtype), "int64")
