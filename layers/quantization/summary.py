"""What of a model is quantized how, in a few words, for whoever inspects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trtllm_port.layers.quantization.layouts.scheme import ModuleScheme, QuantizationScheme
from trtllm_port.layers.quantization.layouts.weight import BITS, ActivationScheme, Kind

STATIC = "static per tensor"


@dataclass(frozen=True)
class QuantizedGroup:
    """Weights that are quantized alike.

    Attributes:
        layout: how they are stored.
        kind: of their codes.
        bits: of a code.
        granularity: what shares a scale: "tensor", "channel" (a row), "group" (of a row) or "block".
        block: rows and columns of a group or block; None where it is all of a row or tensor.
        activation: how inputs are quantized, such as "fp8_e4m3 static per tensor"; None: they are not.
        count: how many weights.
    """

    layout: str
    kind: str
    bits: int
    granularity: str
    block: tuple[int, int] | None
    activation: str | None
    count: int

    @property
    def static_inputs(self) -> bool:
        """Whether each input has one stored scale."""
        return self.activation is not None and self.activation.endswith(STATIC)


@dataclass(frozen=True)
class QuantizationSummary:
    """A quantized model.

    Attributes:
        method: by which it is quantized.
        groups: its quantized weights, the most first.
        unquantized: how many tensors are not quantized.
        kv_cache: how the KV cache is quantized; None: it is not.
        left_out: tensors that a port has no use for: scales of the KV cache and of outputs.
        unread: keys of the config that are not known here.
    """

    method: str
    groups: tuple[QuantizedGroup, ...]
    unquantized: int
    kv_cache: str | None
    left_out: tuple[str, ...]
    unread: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def summarize(
    scheme: QuantizationScheme,
    weights: Iterable[tuple[Kind, tuple[int, int], ModuleScheme]],
    unquantized: int,
    left_out: tuple[str, ...],
) -> QuantizationSummary:
    """Count weights that are alike.

    Args:
        scheme: of the model.
        weights: of each, the kind of codes, the rows and columns that share a scale, and what the config says.
        unquantized: tensors that are not quantized.
        left_out: tensors that are neither.
    """
    counts = Counter(_alike(kind, block, module) for kind, block, module in weights)
    groups = (QuantizedGroup(*alike, count) for alike, count in counts.items())
    ordered = tuple(sorted(groups, key=lambda group: (-group.count, group.layout, group.kind)))
    return QuantizationSummary(scheme.method, ordered, unquantized, scheme.kv_cache, left_out, scheme.unread)


def _alike(
    kind: Kind, block: tuple[int, int], module: ModuleScheme
) -> tuple[str, str, int, str, tuple[int, int] | None, str | None]:
    whole = module.block is not None and 0 in module.block
    high = module.block[0] if module.block is not None else block[0]
    granularity = "group" if high == 1 else "block"
    if whole:
        granularity = "channel" if high == 1 else "tensor"
    return module.layout, kind, BITS[kind], granularity, None if whole else block, _told(module.activation)


def _told(activation: ActivationScheme | None) -> str | None:
    if activation is None:
        return None
    of = f"{activation.granularity} of {activation.group_size}" if activation.group_size else activation.granularity
    return f"{activation.kind} {'dynamic' if activation.dynamic else 'static'} per {of}"
