"""Matrix products."""

from __future__ import annotations

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import network_of, promote
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.operations.shaping import unsqueeze


def matmul(a: Operand, b: Operand, transa: bool = False, transb: bool = False) -> Tensor:
    """The product of the last two dimensions, broadcast over the others.

    Args:
        a, b: tensors or parameters with at least two dimensions; ones are added in front of the shorter shape.
        transa, transb: take the operand's last two dimensions exchanged.
    """
    network, (x, y) = promote("matmul", a, b)
    if any(isinstance(operand, Tensor | Parameter) and len(operand.shape) < 2 for operand in (a, b)):
        raise NetworkError(f"{network.where()}`matmul` of {x.shape} and {y.shape}", hint="unsqueeze the vector")
    operation = network.trt.MatrixOperation
    kinds = [operation.TRANSPOSE if flag else operation.NONE for flag in (transa, transb)]
    layer = network.definition.add_matrix_multiply(x.itensor, kinds[0], y.itensor, kinds[1])
    return network.add("matmul", layer)


def linear(x: Tensor, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x @ weightᵀ + bias; x [*, in], weight [out, in], bias [out] → [*, out]."""
    y = matmul(x, weight, transb=True)
    return y if bias is None else y + bias


def einsum(equation: str, *operands: Operand) -> Tensor:
    """The sum of products named by the equation; lower-case labels, no ellipsis, no diagonal (TensorRT's rules)."""
    network = network_of(*operands)
    tensors = [network.operand(t, network.dtype, 0) if not isinstance(t, Tensor) else t for t in operands]
    if len({tensor.dtype for tensor in tensors}) > 1:
        raise NetworkError(f"{network.where()}`einsum` of {' and '.join(sorted({t.dtype for t in tensors}))}")
    return network.add("einsum", network.definition.add_einsum([t.itensor for t in tensors], equation))


def outer(a: Tensor, b: Tensor) -> Tensor:
    """out[i, j] = a[i] * b[j] of two vectors."""
    return unsqueeze(a, 1) * unsqueeze(b, 0)
