"""Matrix products."""

from __future__ import annotations

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import network_of, promote
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.operations.reduction import sum
from trtllm_port.layers.operations.shaping import unsqueeze, view


def matmul(a: Operand, b: Operand, transa: bool = False, transb: bool = False) -> Tensor:
    """The product of the last two dimensions, broadcast over the others.

    Args:
        a, b: tensors or parameters with at least two dimensions; ones are added in front of the shorter shape.
        transa, transb: take the operand's last two dimensions exchanged.
    """
    quantized = _quantized(a, b, transa, transb)
    if quantized is not None:
        return quantized
    if isinstance(b, Parameter) and isinstance(a, Tensor) and len(b.shape) > 1 and b.dtype == a.dtype:
        b = a.network.factor(b, -1 if transb else -2, max(a.ndim, len(b.shape)))
    network, (x, y) = promote("matmul", a, b)
    if any(isinstance(operand, Tensor | Parameter) and len(operand.shape) < 2 for operand in (a, b)):
        raise NetworkError(f"{network.where()}`matmul` of {x.shape} and {y.shape}", hint="unsqueeze the vector")
    return _product(x, y, transa, transb)


def _product(x: Tensor, y: Tensor, transa: bool, transb: bool) -> Tensor:
    network = x.network
    operation = network.trt.MatrixOperation
    kinds = [operation.TRANSPOSE if flag else operation.NONE for flag in (transa, transb)]
    layer = network.definition.add_matrix_multiply(x.itensor, kinds[0], y.itensor, kinds[1])
    return network.add("matmul", layer)


def _quantized(a: Operand, b: Operand, transa: bool, transb: bool) -> Tensor | None:
    """The product with a quantized parameter whose weight is more than codes times scales; None for any other.

    What its zero points take away, a block at a time, is multiplied with the sums of the features' blocks: TensorRT has
    no zero points, and a weight from which they were taken could not stay 4 bits wide in its kernels.
    """
    if not isinstance(a, Tensor) or not isinstance(b, Parameter) or transa:
        return None
    weight = a.network.quantized(b, max(a.ndim, len(b.shape)))
    if weight is None or weight.is_plain or weight.inputs != (-1 if transb else -2):
        return None
    features = weight.features(a.network.operand(a, a.dtype, len(weight.shape)))
    y = _product(features, weight.product(), False, transb)
    offset = weight.offset()
    if offset is None:
        return y
    blocks = offset.shape[weight.inputs]
    size = features.shape[-1] // blocks
    sums = sum(view(features, [*(0,) * (features.ndim - 1), blocks, size]), -1)
    return y - _product(sums, offset, False, transb)


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
