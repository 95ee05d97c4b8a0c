"""What tensors without weights are: recognised by content, whatever made them.

Hugging Face's older models compute position ids, masks and position tables from sizes, in `__init__` or on the way.
Such a tensor has another shape and other content at every size; what it is, is the same. Every sample is recognised on
its own, and samples that are not recognised alike do not merge: a coincidence makes no port.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.expressions import Float32
from trtllm_port.codegen.ir.record import Attribute, Literal
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.foundation.words import words
from trtllm_port.layers import alibi_slopes

LARGEST_OFFSET = 16  # of learned positions: 2 in BART's family, 1 more than the padding token's number in RoBERTa's
HALF_PRECISION = 0.06  # tables are made in the trace's precision: bfloat16 angles of a few dozen positions
RANDOM = words("rand randn randint randperm empty bernoulli normal multinomial")
SINUSOID_FORMS: tuple[dict[str, bool], ...] = (
    *({}, {"interleaved": True}, {"inclusive": True}),
    {"inclusive": True, "cosines_first": True},
)


@dataclass(frozen=True)
class ConstantRecognizer:
    """Tells what a tensor of one traced step is.

    Attributes:
        sample: the step's sizes: `past` cached tokens, then `length` new ones.
    """

    sample: Sample

    @property
    def positions(self) -> Tensor:
        """[L]: the positions of the new tokens."""
        return torch.arange(self.sample.past, self.sample.past + self.sample.length)

    def offset_of_positions(self, tensor: Tensor, shapes: int = 2) -> int | None:
        """How much more than the tokens' positions an integer tensor [1 or B, L] is, or None if it is none.

        Of one dimension, [L], only if `shapes` is 1.
        """
        if tensor.dtype not in (torch.int64, torch.int32) or tensor.ndim != shapes:
            return None
        if tensor.shape[-1] != self.sample.length or (shapes == 2 and tensor.shape[0] not in (1, self.sample.batch)):
            return None
        offset = int(tensor.flatten()[0]) - self.sample.past
        return offset if 0 <= offset <= LARGEST_OFFSET and bool((tensor == self.positions + offset).all()) else None

    def is_distances(self, tensor: Tensor) -> bool:
        """Whether an integer tensor [L, S] says how far every slot lies before every token."""
        slots = torch.arange(self.sample.past + self.sample.length)
        return tensor.dtype == torch.int64 and torch.equal(tensor, self.positions[:, None] - slots)

    def mask(self, tensor: Tensor) -> tuple[int | None, bool] | None:
        """(window or None, whether True means hidden) of a bool mask [*, L, S], or None if it is no causal mask."""
        length, slots = self.sample.length, self.sample.past + self.sample.length
        if tensor.dtype != torch.bool or tensor.ndim < 2 or tensor.shape[-2:] != (length, slots):
            return None
        rows = tensor.reshape(-1, length, slots)
        if not bool((rows == rows[0]).all()):
            return None
        for mask, hidden in ((rows[0], False), (~rows[0], True)):
            query, slot = self.positions[:, None], torch.arange(slots)[None]
            causal = slot <= query
            window = max(1, int(mask[-1].sum()))
            if torch.equal(mask, causal):
                return None, hidden
            if torch.equal(mask, causal & (slot > query - window)):
                return window, hidden
        return None

    def alibi(self, tensor: Tensor, heads: int) -> dict[str, Any] | None:
        """The options of the `alibi_bias`, for so many heads, that a tensor [*, heads, 1 or L, S] is; or None.

        All numbers of a row may be shifted alike: a softmax does not see it. Batch and heads may be one dimension.
        """
        slots = self.sample.past + self.sample.length
        if not tensor.is_floating_point() or tensor.ndim < 3 or tensor.shape[-1] != slots or tensor.numel() % heads:
            return None
        if tensor.shape[-3] % heads or tensor.shape[-2] not in (1, self.sample.length):
            return None
        rows = tensor.float().reshape(-1, heads, tensor.shape[-2], slots)
        slopes = (rows[..., -1] - rows[..., 0]) / (slots - 1)
        straight = rows[..., :1] + slopes[..., None] * torch.arange(slots)
        power = 2 ** math.floor(math.log2(heads))
        steepest = float(slopes[0, 0, 0])
        if steepest <= 0 or not torch.allclose(rows, straight, rtol=0, atol=0.01 * float(rows.abs().max())):
            return None
        max_bias = round(-power * math.log2(steepest) * 4) / 4
        same = torch.allclose(slopes, alibi_slopes(heads, max_bias)[:, None].expand(slopes.shape), rtol=0.02, atol=0)
        options: dict[str, Any] = {} if max_bias == 8.0 else {"max_bias": max_bias}
        options |= {} if rows[..., 0].any() else {"from_first": True}
        return options if same else None

    def sinusoid(self, tensor: Tensor) -> tuple[int, dict[str, bool]] | None:
        """The offset of positions and the options that make `sinusoidal_positions` give a tensor [*, L, D]; or None.

        In half precision several of them may come near: the nearest one counts.
        """
        length, dim = self.sample.length, tensor.shape[-1] if tensor.ndim >= 2 else 0
        if not tensor.is_floating_point() or dim < 4 or dim % 2 or tensor.shape[-2] != length:
            return None
        rows = tensor.reshape(-1, length, dim).float()
        found: tuple[int, dict[str, bool]] | None = None
        least = math.inf
        for offset in range(LARGEST_OFFSET):
            for form in SINUSOID_FORMS:
                errors = (rows - sinusoid(self.positions + offset, dim, **form)).abs()
                if bool((errors < HALF_PRECISION).all()) and float(errors.mean()) < least:
                    found, least = (offset, form), float(errors.mean())
        return found


def sinusoid(
    positions: Tensor, dim: int, *, interleaved: bool = False, inclusive: bool = False, cosines_first: bool = False
) -> Tensor:
    """`layers.sinusoidal_positions` in torch: [L, D] for positions [L]."""
    exponents = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2 - inclusive)
    angles = positions[:, None].float() * 10000.0**-exponents
    parts = (angles.cos(), angles.sin()) if cosines_first else (angles.sin(), angles.cos())
    return torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)


def uniform(tensor: Tensor) -> bool | int | float | None:
    """The number that all elements of a tensor are, or None."""
    if not tensor.numel() or tensor.is_complex():
        return None
    first = tensor.flatten()[0]
    number: bool | int | float = first.item()
    return number if bool((tensor == first).all()) else None


def stored_tensor(model: nn.Module, path: str) -> torch.Tensor:
    """A parameter, buffer or other tensor that a module holds, by its full name."""
    owner, _, name = path.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(owner), name)
    return tensor


def stays_bfloat16(arg: Any, buffers: frozenset[str]) -> bool:
    """Whether a constant is in bfloat16 whatever the model's precision is.

    Args:
        arg: a constant of the record.
        buffers: those that are.
    """
    return arg.stays_bfloat16 if isinstance(arg, Literal) else isinstance(arg, Attribute) and arg.path in buffers


def exact_number(attribute: Attribute, trace: Trace) -> float:
    """The number in a buffer of the model's data type before it was rounded: what a model in float32 has there."""
    return Float32(stored_tensor(trace.in_float32(), attribute.path).item())


def constant_of(arg: Any, model: nn.Module) -> torch.Tensor | None:
    """The content of a literal, or of a buffer or attribute that no checkpoint holds."""
    if isinstance(arg, Literal):
        return arg.tensor
    if isinstance(arg, Attribute) and not arg.persistent:
        return stored_tensor(model, arg.path)
    return None
