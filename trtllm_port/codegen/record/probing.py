"""Which modules are basic layers: decided by what they compute, never by what they are called.

Each probe runs the Hugging Face module on random input, in float32 and in the trace's precision, and compares it with
torch's formula for a class of `trtllm_port.layers`. In half precision the results must be equal to the last bit: a norm
that casts at another place is no `RmsNorm`, and its traced computation is printed instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.huggingface.options import is_activation, make_activation

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
EPS_NAMES = ("eps", "variance_epsilon", "norm_eps", "layer_norm_eps", "epsilon")


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    """`layers.RmsNorm` in torch."""
    normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return weight * normed.to(x.dtype) if not offset else (normed * (weight.float() + offset)).to(x.dtype)


def probe(module: nn.Module) -> Leaf | None:
    """The basic layer that `module` is, or None."""
    if any(True for _ in module.children()):
        return None
    parameters = dict(module.named_parameters(recurse=False))
    buffers = [
        name for name, _ in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set
    ]
    if buffers or not set(parameters) <= {"weight", "bias"}:
        return None
    if not parameters:
        return _probe_activation(module)
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if weight is None:
        return None
    return _probe_matrix(module, weight, bias) if weight.ndim == 2 else _probe_norm(module, weight, bias)


def convolution(module: Any) -> Leaf | None:
    """The `CausalConv1d` with the parameters of a module, if that is how these are used; or None."""
    parameters = dict(module.named_parameters(recurse=False))
    weight = parameters.get("weight")
    if weight is None or weight.ndim != 3 or weight.shape[1] != 1 or not set(parameters) <= {"weight", "bias"}:
        return None
    return Leaf("CausalConv1d", (weight.shape[0], weight.shape[2]), {"bias": "bias" in parameters})


class _Plain(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def activation_name(function: Callable[..., Any]) -> str | None:
    """The name in `layers.ACT2FN` of what a module or function computes elementwise, or None."""
    module = function if isinstance(function, nn.Module) else _Plain(function)
    x = torch.linspace(-6, 6, 97)[None]
    for name, known in ACTIVATIONS.items():
        if _agrees(module, (x,), known, exact=False):
            return name
    return None


def signature(module: nn.Module) -> Any:
    """What two modules have in common that give the same answer to `probe`: class, shapes, numbers and options."""
    if any(True for _ in module.children()):
        return id(module)
    tensors = [(n, p.shape, p.dtype) for n, p in (*module.named_parameters(), *module.named_buffers())]
    return type(module), options(module), repr(tensors)


def options(module: nn.Module) -> str:
    """The numbers and options that a module holds."""
    return repr(sorted((k, v) for k, v in vars(module).items() if isinstance(v, int | float | str | None)))


@cache
def named_activation(name: str) -> str | None:
    """The name in `layers.ACT2FN` of the function that transformers calls `name`."""
    return activation_name(make_activation(name)) if is_activation(name) else None


def _probe_activation(module: nn.Module) -> Leaf | None:
    name = activation_name(module)
    return None if name is None else Leaf("Activation", (name,))


def function(module: nn.Module) -> Leaf | None:
    """The function in `layers.ACT2FN` that a module is, if it holds nothing; or None."""
    leaf = None if any(True for _ in (*module.children(), *module.parameters())) else probe(module)
    return None if leaf is None else replace(leaf, kind="ACT2FN")


def _probe_matrix(module: nn.Module, weight: Tensor, bias: Tensor | None) -> Leaf | None:
    first, second = weight.shape
    if isinstance(module, nn.Embedding):
        ids = torch.arange(min(first, 7))[None]
        same = bias is None and _agrees(module, (ids,), lambda m, ids: F.embedding(ids, m.weight), with_module=True)
        return Leaf("Embedding", (first, second)) if same else None
    if _agrees(
        module, (_noise(2, 3, second),), lambda m, x: F.linear(x, m.weight, getattr(m, "bias", None)), with_module=True
    ):
        keywords = {"bias": bias is not None}
        return Leaf("Linear", (second, first), keywords)
    if bias is not None and _agrees(
        module, (_noise(2, 3, first),), lambda m, x: F.linear(x, m.weight.T, m.bias), with_module=True
    ):
        return Leaf("Conv1D", (second, first))
    return None


def _probe_norm(module: nn.Module, weight: Tensor, bias: Tensor | None) -> Leaf | None:
    if weight.ndim != 1:
        return None
    size, x = weight.shape[0], _noise(3, 4, weight.shape[0]) * 2 + 0.5
    for eps in _candidates(module):
        if bias is None:
            for offset in (0.0, 1.0):

                def norm(m: Any, x: Tensor, eps: float = eps, offset: float = offset) -> Tensor:
                    return rms_norm(x, m.weight, eps, offset)

                if _agrees(module, (x,), norm, with_module=True):
                    return Leaf("RmsNorm", (size,), {"eps": eps, "offset": offset})

        def layer_norm(m: Any, x: Tensor, eps: float = eps) -> Tensor:
            return F.layer_norm(x, x.shape[-1:], m.weight, getattr(m, "bias", None), eps)

        if _agrees(module, (x,), layer_norm, with_module=True):
            return Leaf("LayerNorm", (size,), {"eps": eps, "bias": bias is not None})
    return None


def _candidates(module: nn.Module) -> Iterable[float]:
    for name in EPS_NAMES:
        value = getattr(module, name, None)
        if isinstance(value, float | int):
            yield float(value)


def _agrees(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    formula: Callable[..., Tensor],
    *,
    with_module: bool = False,
    exact: bool = True,
) -> bool:
    """Whether module and formula agree: closely in float32, and (if `exact`) bit by bit in the module's precision."""
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    with torch.no_grad():
        for precision in dict.fromkeys((torch.float32, dtype)):
            probed = module if precision == dtype else copy.deepcopy(module).to(precision)
            arguments = [x.to(precision) if x.is_floating_point() else x for x in inputs]
            try:
                got = probed(*arguments)
            except (AttributeError, TypeError, RuntimeError, ValueError, IndexError, NotImplementedError):
                return False
            expected = formula(probed, *arguments) if with_module else formula(*arguments)
            if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != expected.dtype:
                return False
            if not bool(expected.isfinite().all()):  # a layer whose weights were never written proves nothing
                return False
            tolerance = 2e-6 * float(expected.abs().max() + 1) if precision == torch.float32 else 0.0
            if not torch.allclose(got, expected, rtol=0, atol=tolerance) and (exact or precision == torch.float32):
                return False
    return True


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))
