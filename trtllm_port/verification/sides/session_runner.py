"""The port's runner: a session of the engine, or of the reference executor, that can be tapped."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trtllm_port.layers.weights import MappingWeights, TensorSource
from trtllm_port.runtime.generation import pad_prompts
from trtllm_port.verification.stimulus.input_log import InputLog
from trtllm_port.verification.taps.runner import Force, Forced, OnTap, Rows

if TYPE_CHECKING:
    from trtllm_port.runtime.session import Session

NO_WEIGHTS = MappingWeights({})


class SessionRunner:
    """The port, run by a session (TensorRT or the reference executor).

    Args:
        session: the network and what computes it.
        weights: the port's parameters.
        together: run all steps of a decode layer by layer, so that weights that stay on disk are read once.
    """

    def __init__(self, session: Session, weights: TensorSource = NO_WEIGHTS, *, together: bool = False) -> None:
        self.session = session
        self.weights = weights
        self.together = together
        self._log = InputLog()

    @property
    def name(self) -> str:
        return self.session.executor.name

    @property
    def tap_names(self) -> tuple[str, ...]:
        return tuple(self.session.executor.tap_names)

    @property
    def computed_elsewhere(self) -> Mapping[str, str | None]:
        return self.session.executor.computed_elsewhere

    @property
    def unread(self) -> tuple[str, ...]:
        return tuple(name for name in self.weights.names() if name not in self.session.executor.parameters)

    @property
    def max_batch_size(self) -> int:
        return self.session.max_batch_size

    @property
    def inputs(self) -> Mapping[str, Collection[str]]:
        return self._log.differed

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        batch, length = ids_BL.shape
        position_ids = torch.arange(length).expand(batch, length)
        wanted = () if on_tap is None else tuple(self.tap_names if taps is None else taps)
        cache = self.session.new_cache(batch)
        self._note(ids_BL, position_ids, position_ids, cache)
        logits = self.session.forward(ids_BL, position_ids, cache, position_ids, on_tap=on_tap, taps=wanted)
        return logits.cpu()

    def run_incrementally(
        self, rows: Rows, prefill: Sequence[int], *, forced: Forced | None = None, keep: dict[str, Tensor] | None = None
    ) -> list[Tensor]:
        cache = self.session.new_cache(len(rows))
        calls = self._calls(rows, prefill)
        if self.together and forced is None:
            for call in calls:
                self._note(*call.feeds)
            outputs = iter(self.session.forward_together([(*call.feeds, cache) for call in calls]))
        else:
            outputs = (self._forward(call, cache, forced) for call in calls)
        rows_LV = _by_row(outputs, prefill)
        self._log.note(cache)
        if keep is not None:
            keep.update(cache)
        return rows_LV

    def run_last(self, prompts: Rows, *, forced: Forced | None = None) -> Tensor:
        call = self._calls(prompts, [len(prompt) for prompt in prompts])[0]
        last = call._replace(wanted=pad_prompts(prompts).last_B1)
        return self._forward(last, self.session.new_cache(len(prompts)), forced).cpu()

    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        return self.session.forward_to(tap, ids_L[None], positions_L[None]).cpu()

    def run_all(
        self, ids: Sequence[int], prefill: int, short: int, *, observers: tuple[OnTap, OnTap], taps: Collection[str]
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Compute a prompt, its beginning by itself, and its last tokens one by one: layer by layer, all at once.

        Weights are read once for all of them. The steps go on from what the prompt left in the KV cache.

        Args:
            ids: the prompt.
            prefill: how many of its tokens come before those that are fed one by one.
            short: how many tokens the beginning has.
            observers: of the prompt and of its beginning.
            taps: what they see.

        Returns:
            Logits [1, L, V] of the prompt, [1, `short`, V] of its beginning, [L, V] of the prompt up to `prefill` and
            the steps after it, and the cache that these leave.
        """
        from trtllm_port.runtime.reference.executor import Continued

        cache = self.session.new_cache(1)
        steps = [(*call.feeds, cache) for call in self._calls([ids], [prefill])[1:]]
        prompts = [self._prompt(ids), self._prompt(ids[:short])]
        for feeds in (*prompts, *steps):
            self._note(*feeds)
        continued = Continued(first=len(prompts), slots=prefill)
        logits_1LV, begun_1LV, *outputs = self.session.forward_together(
            [*prompts, *steps], observers=[(observer, taps) for observer in observers], continued=continued
        )
        self._log.note(cache)
        logits_1LV = logits_1LV.cpu()
        decoded_LV = torch.cat([logits_1LV[0, :prefill], *(logits[0].cpu() for logits in outputs)])
        return logits_1LV, begun_1LV.cpu(), decoded_LV, cache

    def _prompt(self, ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        positions_1L = torch.arange(len(ids))[None]
        return torch.tensor([list(ids)]), positions_1L, positions_1L, self.session.new_cache(1)

    def _forward(self, call: _Call, cache: dict[str, Tensor], forced: Forced | None) -> Tensor:
        on_tap, taps = (None, ()) if forced is None else (partial(_at, call.places, forced.force), forced.taps)
        self._note(*call.feeds, cache)
        return self.session.forward(call.ids, call.positions, cache, call.wanted, on_tap=on_tap, taps=taps)

    def _calls(self, rows: Rows, prefill: Sequence[int]) -> list[_Call]:
        longest = max(prefill)
        prompts = pad_prompts([row[:n] for row, n in zip(rows, prefill, strict=True)])
        everywhere_BL = torch.arange(longest).expand_as(prompts.ids_BL)
        calls = [_Call(prompts.ids_BL, prompts.positions_BL, everywhere_BL, [range(longest) for _ in rows])]
        for step in range(len(rows[0]) - prefill[0]):
            ids_B1 = torch.tensor([[row[n + step]] for row, n in zip(rows, prefill, strict=True)])
            positions_B1 = torch.tensor([[n + step] for n in prefill])
            places = [range(n + step, n + step + 1) for n in prefill]
            calls.append(_Call(ids_B1, positions_B1, torch.zeros_like(ids_B1), places))
        return calls

    def _note(self, ids: Tensor, positions: Tensor, wanted: Tensor, cache: Mapping[str, Tensor] | None = None) -> None:
        self._log.note({"input_ids": ids, "position_ids": positions, "logits_indices": wanted, **(cache or {})})


class _Call(NamedTuple):
    """One forward of a padded batch: `wanted` are the tokens whose logits count, for `places` see `Force`."""

    ids: Tensor
    positions: Tensor
    wanted: Tensor
    places: Sequence[range]

    @property
    def feeds(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a session takes beside the cache."""
        return self.ids, self.positions, self.wanted


def _by_row(outputs: Iterator[Tensor], prefill: Sequence[int]) -> list[Tensor]:
    """Put together each row's logits of a padded prefix and of the steps after it."""
    first_BLV = next(outputs).cpu()
    collected = [[first_BLV[b, :n]] for b, n in enumerate(prefill)]
    for logits_B1V in outputs:
        for b, parts in enumerate(collected):
            parts.append(logits_B1V[b].cpu().clone())
    return [torch.cat(parts) for parts in collected]


def _at(places: Sequence[range], force: Force, tap: str, tensor: Tensor) -> Tensor:
    return force(tap, tensor, places)
