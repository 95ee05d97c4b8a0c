"""Modules of Hugging Face's that a port computes elsewhere, as its classes declare with `computed_elsewhere`.

    computed_elsewhere = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "dropout": None}

Those of one module of the port are its output, cut along the last dimension in the order of the declaration; each part
is compared as the tap of Hugging Face's module. What is declared as None is in no output by itself, and is listed as
not exercised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trtllm_port.verification.taps.runner import Forced, OnTap, PortRunner, Rows

Parts = Mapping[str, Sequence[tuple[str, int]]]
"""Tap of the port → Hugging Face's modules that are its output side by side, and the width of each."""


def with_split_taps(port: PortRunner, widths: Mapping[str, int]) -> PortRunner:
    """Return the port with a tap for each of Hugging Face's modules that are side by side in an output of its own.

    Args:
        port: whose classes declare them.
        widths: of Hugging Face's modules, the size of the last dimension of their output.
    """
    sharing: dict[str, list[tuple[str, int]]] = {}
    for name, place in port.computed_elsewhere.items():
        if place in port.tap_names and name in widths:
            sharing.setdefault(str(place), []).append((name, widths[name]))
    if not sharing:
        return port
    sizes: dict[str, int] = {}

    def measure(tap: str, tensor: Tensor) -> None:
        sizes[tap] = tensor.shape[-1]

    port.run(torch.zeros((1, 1), dtype=torch.int64), on_tap=measure, taps=tuple(sharing))
    fitting = {tap: parts for tap, parts in sharing.items() if sum(width for _, width in parts) == sizes[tap]}
    return _SplitTaps(port, fitting)


class _SplitTaps:
    """A port some of whose taps are taken for several, side by side (arguments as `PortRunner` has them)."""

    def __init__(self, port: PortRunner, parts: Parts) -> None:
        self.port = port
        self.parts = parts
        self.name = port.name
        self.weights = port.weights
        self.max_batch_size = port.max_batch_size
        self.unread = port.unread
        self.computed_elsewhere = port.computed_elsewhere
        self.holder = {name: tap for tap, members in parts.items() for name, _ in members}
        self.tap_names = (*port.tap_names, *self.holder)

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        wanted = self.tap_names if taps is None else tuple(taps)
        see = None if on_tap is None else self._each_part(on_tap, wanted)
        return self.port.run(ids_BL, on_tap=see, taps=self._own(wanted))

    def run_incrementally(
        self, rows: Rows, prefill: Sequence[int], *, forced: Forced | None = None, keep: dict[str, Tensor] | None = None
    ) -> list[Tensor]:
        return self.port.run_incrementally(rows, prefill, forced=self._split(forced), keep=keep)

    def run_last(self, prompts: Rows, *, forced: Forced | None = None) -> Tensor:
        return self.port.run_last(prompts, forced=self._split(forced))

    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        return self.port.look_up(self.holder.get(tap, tap), ids_L, positions_L)

    @property
    def inputs(self) -> Mapping[str, Collection[str]]:
        return self.port.inputs

    def _split(self, forced: Forced | None) -> Forced | None:
        return None if forced is None else Forced(self._each_part(*forced), self._own(forced.taps))

    def _own(self, taps: Collection[str]) -> tuple[str, ...]:
        """The port's taps that hold what is wanted, each once."""
        return tuple(dict.fromkeys(self.holder.get(tap, tap) for tap in taps))

    def _each_part(self, call: Callable[..., Tensor | None], wanted: Collection[str]) -> Callable[..., Any]:
        def see(tap: str, tensor: Tensor, *places: Any) -> Tensor | None:
            seen = call(tap, tensor, *places) if tap in wanted else None
            if tap not in self.parts:
                return seen
            members = self.parts[tap]
            pieces = torch.split(tensor, [width for _, width in members], -1)
            others = [
                call(name, piece, *places) if name in wanted else None
                for (name, _), piece in zip(members, pieces, strict=True)
            ]
            if all(other is None for other in others):
                return seen
            return torch.cat([p if other is None else other for p, other in zip(pieces, others, strict=True)], -1)

        return see
