"""MATRIX_MULTIPLY and EINSUM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Bound, Evaluator, Layer
from trtllm_port.runtime.reference.evaluators.linear import Linear


def matrix_multiply(layer: Layer) -> Evaluator | Bound:
    """`op0(a) @ op1(b)`, where an op leaves a matrix, transposes it, or makes a vector of the last axis.

    Leading axes broadcast. A matrix known beforehand whose leading axes are 1 is a linear layer's weight.
    """
    kinds = ("NONE", "TRANSPOSE", "VECTOR")
    op0, op1 = layer["op0"], layer["op1"]
    if op0 not in kinds or op1 not in kinds:
        layer.refuse(f"operands {op0}, {op1}")
    weight = layer.constant(1)
    if weight is not None and op0 == "NONE" and op1 != "VECTOR" and weight.shape[:-2].numel() == 1:
        matrix = weight.reshape(weight.shape[-2:])
        matrix = matrix if op1 == "TRANSPOSE" else matrix.t()
        return Bound(Linear(matrix), (layer.slot(0),))
    if op0 == "NONE" and op1 == "TRANSPOSE" and all(size == 1 for size in layer.input(1).shape[:-2]):
        return lambda a, b: F.linear(a, b.reshape(b.shape[-2:]))  # a dequantized weight: as if it were a constant
    if "VECTOR" not in (op0, op1):
        return lambda a, b: torch.matmul(a.mT if op0 == "TRANSPOSE" else a, b.mT if op1 == "TRANSPOSE" else b)
    return lambda a, b: _with_vectors(a, op0, b, op1)


def _with_vectors(a: Tensor, op0: str, b: Tensor, op1: str) -> Tensor:
    a = a.unsqueeze(-2) if op0 == "VECTOR" else a.mT if op0 == "TRANSPOSE" else a
    b = b.unsqueeze(-1) if op1 == "VECTOR" else b.mT if op1 == "TRANSPOSE" else b
    product = torch.matmul(a, b)
    if op1 == "VECTOR":
        product = product.squeeze(-1)
        return product.squeeze(-1) if op0 == "VECTOR" else product
    return product.squeeze(-2)


def einsum(layer: Layer) -> Evaluator:
    """Sum of products by an equation, which names the output's axes or leaves them in alphabetical order."""
    equation = layer["equation"]
    return lambda *operands: torch.einsum(equation, *operands)
