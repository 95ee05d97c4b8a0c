"""Operations that are several of the port's at once, one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.record import Attribute, Operation, Value
from trtllm_port.codegen.recognise.constants import stored_tensor

PRODUCTS = {"baddbmm": "bmm", "addmm": "matmul"}


def decomposed(operation: Operation, model: nn.Module) -> list[Operation]:
    """The operations that stand for one: a product to which something is added is two."""
    product = PRODUCTS.get(operation.name)
    if not product or operation.kwargs or len(operation.args) != 3:
        return [operation]
    added, left, right = operation.args
    first, second = (_content(arg, model) for arg in (left, right))
    value = Value(torch.matmul(first, second))
    return [
        Operation(product, (left, right), {}, (value,), operation.location),
        Operation("add", (value, added), {}, operation.outputs, operation.location),
    ]


def _content(arg: Any, model: nn.Module) -> Tensor:
    if isinstance(arg, Attribute):
        return stored_tensor(model, arg.path)
    tensor: Tensor = arg.tensor
    return tensor
