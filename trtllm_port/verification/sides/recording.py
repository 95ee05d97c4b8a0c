"""The reference's taps, kept for as long as the other runs are compared with them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trtllm_port.huggingface.module_outputs import CHOSEN, WEIGHTS
from trtllm_port.verification.judge.error_cache import ErrorCache
from trtllm_port.verification.judge.routing import force_rows
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS
from trtllm_port.verification.taps.routers import Router, routers_of
from trtllm_port.verification.taps.runner import CacheLayer, Rows, Runner
from trtllm_port.verification.taps.store import TapStore


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One run of Hugging Face on a stimulus.

    Attributes:
        taps: their tensors, in the order in which they happened, the logits last.
        length: tokens of the long prompt.
        rows: [L_b, V] of each row of the batch, each run alone.
        routers: modules that choose experts; all other runs are made to choose the same.
        row_routing: their taps, per row of the batch.
        errors_of: compares tensors of the other runs with the taps.
    """

    taps: Mapping[str, Tensor] = field(repr=False)
    length: int
    rows: tuple[Tensor, ...] = field(repr=False)
    routers: tuple[Router, ...] = ()
    row_routing: tuple[Mapping[str, Tensor], ...] = field(default=(), repr=False)
    errors_of: ErrorCache = field(default_factory=ErrorCache, repr=False)

    @property
    def order(self) -> tuple[str, ...]:
        """The taps in the order in which they happened."""
        return tuple(self.taps)

    @property
    def logits(self) -> Tensor:
        """[L, V] of the long prompt."""
        return self.taps[LOGITS][0]

    @property
    def forced(self) -> frozenset[str]:
        """The taps at which every run takes the reference's values."""
        return frozenset(tap for router in self.routers for tap in router.taps)


def record(
    runner: HuggingFaceRunner, stimulus: Stimulus, *, on_disk: bool = False, cache: list[CacheLayer] | None = None
) -> Recording:
    """Run the long prompt with all taps, then every row alone.

    Tensors are kept without a copy; a model that later writes into one of them is run again with copies.

    Args:
        runner: the reference.
        stimulus: the input.
        on_disk: keep the taps in temporary files instead of in memory.
        cache: is given what the KV cache holds after the long prompt; None: none is kept.
    """
    ids_BL = torch.tensor([stimulus.ids])
    taps: MutableMapping[str, Tensor]
    if on_disk:
        taps = TapStore()
        logits = runner.run(ids_BL, on_tap=taps.__setitem__, cache=cache)
    else:
        taps, logits, altered = _record_taps(runner, ids_BL, cache, copy=False)
        if altered:
            taps, logits, _ = _record_taps(runner, ids_BL, cache, copy=True)
    routers = routers_of(taps)
    _drop_known_choices(taps, routers)
    taps[LOGITS] = logits
    recorded = [record_row(runner, row, routers) for row in stimulus.rows]
    return Recording(
        taps=taps,
        length=len(stimulus.ids),
        rows=tuple(logits_LV for logits_LV, _ in recorded),
        routers=routers,
        row_routing=tuple(routing for _, routing in recorded),
    )


def _drop_known_choices(taps: MutableMapping[str, Tensor], routers: Sequence[Router]) -> None:
    """Forget what modules of experts are given, where the router that chose it is compared already."""
    judged = {tap for router in routers for tap in router.taps}
    for tap in [tap for tap in taps if tap.endswith((CHOSEN, WEIGHTS)) and tap not in judged]:
        del taps[tap]


def record_row(runner: Runner, row: Sequence[int], routers: Sequence[Router]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a row's logits [L, V] and what its routers chose, by tap."""
    kept: dict[str, Tensor] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        kept[tap] = tensor.detach().clone()

    wanted = [tap for router in routers for tap in router.taps]
    return runner.run(torch.tensor([row]), on_tap=keep, taps=wanted)[0], kept


def row_logits(runner: Runner, rows: Rows) -> tuple[Tensor, ...]:
    """Return logits [L_b, V] of every row, each run alone, without padding."""
    return forced_row_logits(runner, rows, [{} for _ in rows])


def forced_row_logits(runner: Runner, rows: Rows, routing: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, ...]:
    """Return logits [L_b, V] of every row, each run alone with the routing given for it, without padding."""
    results = []
    for row, forced in zip(rows, routing, strict=True):
        force = partial(_forced, forced)
        results.append(runner.run(torch.tensor([row]), on_tap=force, taps=tuple(forced))[0])
    return tuple(results)


def _forced(routing: Mapping[str, Tensor], tap: str, tensor: Tensor) -> Tensor:
    length = tensor.numel() // tensor.shape[-1]
    return force_rows([routing], tap, tensor, [range(length)])


def _record_taps(
    runner: HuggingFaceRunner, ids_BL: Tensor, cache: list[CacheLayer] | None, *, copy: bool
) -> tuple[dict[str, Tensor], Tensor, bool]:
    kept: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        kept[tap] = tensor.detach().clone() if copy else tensor.detach()
        versions[tap] = kept[tap]._version

    logits = runner.run(ids_BL, on_tap=keep, cache=cache)
    altered = any(kept[tap]._version != version for tap, version in versions.items())
    return kept, logits, altered
