"""The reference's taps, kept for as long as the other runs are compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.runners import Runner
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One run of Hugging Face on a stimulus.

    Attributes:
        order: taps in the order in which they happened, the logits last.
        taps: their tensors.
        logits: [L, V] of the long prompt.
        rows: [L_b, V] of each row of the batch, each run alone.
    """

    order: tuple[str, ...]
    taps: dict[str, Tensor] = field(repr=False)
    logits: Tensor = field(repr=False)
    rows: tuple[Tensor, ...] = field(repr=False)


def record(runner: Runner, stimulus: Stimulus) -> Recording:
    """Run the long prompt with all taps, then every row alone.

    Tensors are kept without a copy; a model that later writes into one of them is run again with copies.
    """
    ids_BL = torch.tensor([stimulus.ids])
    taps, logits, altered = _record_taps(runner, ids_BL, copy=False)
    if altered:
        taps, logits, _ = _record_taps(runner, ids_BL, copy=True)
    taps[LOGITS] = logits
    return Recording(order=tuple(taps), taps=taps, logits=logits[0], rows=row_logits(runner, stimulus.rows))


def row_logits(runner: Runner, rows: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """Return logits [L_b, V] of every row, each run alone, without padding."""
    return tuple(runner.run(torch.tensor([row]))[0] for row in rows)


def _record_taps(runner: Runner, ids_BL: Tensor, *, copy: bool) -> tuple[dict[str, Tensor], Tensor, bool]:
    kept: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        kept[tap] = tensor.detach().clone() if copy else tensor.detach()
        versions[tap] = kept[tap]._version

    logits = runner.run(ids_BL, on_tap=keep)
    altered = any(kept[tap]._version != version for tap, version in versions.items())
    return kept, logits, altered
