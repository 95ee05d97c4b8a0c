"""Finding what decides in a model: routers of a mixture of experts, or of slots, and inputs that are rounded to codes.

Routers are found by what the reference's modules return and are given.

T tokens, A experts of one token, X experts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from trtllm_port.huggingface.module_outputs import CHOSEN, WEIGHTS, made_beside
from trtllm_port.layers.definition.quantized import ROUNDING
from trtllm_port.verification.taps.names import is_input, module_of, parent_of, within


@dataclass(frozen=True, kw_only=True)
class Router:
    """The taps of one router.

    Attributes:
        module: its path.
        indices: the tap of its decisions, integers [T, A]; or the weights [T, X] of all experts, see `chosen`.
        weights: taps of the same shape that belong to them.
        scores: the tap [T, X] that the decisions were made by, or None.
        of_slots: it chooses slots of the cache to attend to, not experts. Those that lie behind a token are hidden from
            it: where it sees fewer than it may choose, it does not matter which of them make up the number.
        rounded: it is no router, but what goes into a module, [T, K], rounded to codes of this kind; near the middle
            between two codes, two precise computations take different ones.
        chosen: A of a router that returns no numbers but a weight of every expert, zero of those not chosen; else None.
    """

    module: str
    indices: str
    weights: tuple[str, ...]
    scores: str | None
    of_slots: bool = False
    chosen: int | None = None
    rounded: str | None = None

    @property
    def taps(self) -> tuple[str, ...]:
        """What is forced: the decisions and what belongs to them."""
        return tuple(dict.fromkeys((self.indices, *self.weights)))


def routers_of(taps: Mapping[str, Tensor]) -> tuple[Router, ...]:
    """Find the routers: modules that return integers [T, A] together with floats of the same shape, or slots alone.

    Or scores [T, X] together with weights of the same shape, zero but for those of A experts. And a block that chooses
    by its router's scores itself hands the choice to its experts: it is found at their inputs.

    Args:
        taps: of the reference.
    """
    outputs: dict[str, list[str]] = {}
    for tap in taps:
        if not is_input(tap):
            outputs.setdefault(module_of(tap), []).append(tap)
    returned = [router for module, names in outputs.items() for router in _router(module, names, taps)]
    choosers = [router.module for router in returned]
    given = [tap for tap in taps if tap.endswith(CHOSEN) and not made_beside(module_of(tap), choosers)]
    return (*returned, *(_given(tap, taps) for tap in given), *_roundings(taps))


def _roundings(taps: Mapping[str, Tensor]) -> Iterator[Router]:
    for tap in taps:
        module, _, name = tap.rpartition(".")
        if name.startswith(ROUNDING) and not is_input(tap):
            yield Router(module=module, indices=tap, weights=(), scores=None, rounded=name.removeprefix(ROUNDING))


def _given(tap: str, taps: Mapping[str, Tensor]) -> Router:
    """What a module of experts is told to use; the scores are the last that its block has one of per expert."""
    module, chosen_TA = module_of(tap), taps[tap]
    before = takewhile(lambda other: other != tap, taps)
    beside = [other for other in before if within(module_of(other), parent_of(module)) and not is_input(other)]
    fitting = [
        other
        for other in beside
        if taps[other].is_floating_point()
        and taps[other].shape[:-1] == chosen_TA.shape[:-1]
        and taps[other].shape[-1] > chosen_TA.shape[-1]
    ]
    return Router(module=module, indices=tap, weights=(module + WEIGHTS,), scores=fitting[-1] if fitting else None)


def _router(module: str, names: Sequence[str], taps: Mapping[str, Tensor]) -> Iterator[Router]:
    chosen = [n for n in names if not taps[n].is_floating_point() and taps[n].dtype != torch.bool and taps[n].ndim > 1]
    floats = [n for n in names if taps[n].is_floating_point()]
    if not chosen and len(floats) > 1:
        yield from _weighing_all(module, floats, taps)
    if len(chosen) != 1 or (floats and taps[chosen[0]].shape[-1] > max(taps[n].shape[-1] for n in floats)):
        return
    shape = taps[chosen[0]].shape
    weights = tuple(n for n in floats if taps[n].shape == shape)
    scores = [n for n in floats if taps[n].shape[:-1] == shape[:-1] and taps[n].shape[-1] > shape[-1]]
    if chooses_slots(taps[chosen[0]]) and len(names) == 1 and shape[-1] < shape[-2]:
        yield Router(module=module, indices=chosen[0], weights=(), scores=None, of_slots=True)
    if weights:
        yield Router(module=module, indices=chosen[0], weights=weights, scores=scores[0] if scores else None)


def _weighing_all(module: str, floats: Sequence[str], taps: Mapping[str, Tensor]) -> Iterator[Router]:
    alike = [tap for tap in floats if taps[tap].ndim > 1 and taps[tap].shape == taps[floats[0]].shape]
    if len(alike) != 2:
        return
    counts = {tap: torch.aminmax(taps[tap].count_nonzero(-1)) for tap in alike}
    weights, scores = sorted(alike, key=lambda tap: int(counts[tap].max))
    chosen = int(counts[weights].max)
    if 0 < chosen == int(counts[weights].min) and chosen < int(counts[scores].min):
        yield Router(module=module, indices=weights, weights=(weights,), scores=scores, chosen=chosen)


def chooses_slots(tensor: Tensor) -> bool:
    """Whether a module's output are numbers of slots, [B, L, C]: those that each token attends to."""
    return tensor.dtype in (torch.int32, torch.int64) and tensor.ndim == 3
