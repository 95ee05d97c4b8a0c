"""Mixtures of experts: decisions are compared first, values second.

A router that returns the indices of a token's experts decides, and near a tie two precise computations decide
differently: everything after it differs for that token, and nothing is wrong. So the indices are compared as sets, with
the margin by which the reference preferred its own; and every run continues with the reference's routing, so that
values are compared on equal terms.

T tokens, A experts of one token, X experts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor

from trtllm_port.hf_taps import CHOSEN, WEIGHTS, made_beside
from trtllm_port.verification.compare import TapComparison, failure, judge
from trtllm_port.verification.gates import Gate
from trtllm_port.verification.metrics import token_errors
from trtllm_port.verification.taps import is_input, module_of, parent_of, within
from trtllm_port.verification.thresholds import CONFIDENT_NOISE_MULTIPLE, ROUNDING, ROUTING_FLIPS
from trtllm_port.verification.verdict import Verdict, worst

REPRODUCED = 0.99  # so many tokens' experts must the scores' largest be, for margins of the scores to mean anything


@dataclass(frozen=True, kw_only=True)
class Router:
    """The taps of one router.

    Attributes:
        module: its path.
        indices: the tap of its decisions, integers [T, A].
        weights: taps of the same shape that belong to them.
        scores: the tap [T, X] that the decisions were made by, or None.
        of_slots: it chooses slots of the cache to attend to, not experts. Those that lie behind a token are hidden from
            it: where it sees fewer than it may choose, it does not matter which of them make up the number.
    """

    module: str
    indices: str
    weights: tuple[str, ...]
    scores: str | None
    of_slots: bool = False

    @property
    def taps(self) -> tuple[str, ...]:
        """What is forced: the decisions and what belongs to them."""
        return (self.indices, *self.weights)


@dataclass(frozen=True, kw_only=True)
class RoutingFacts:
    """How a router decided on the stimulus.

    Attributes:
        module: its path.
        tokens: how many tokens it routed.
        flips: tokens for which the port chose other experts.
        floor_flips: the same of the yardstick.
        excused: flips of the port that are within the noise.
        margin: the largest lead of the reference's choice over the port's, in units of the noise; None if unknown.
        unused: experts that the reference never chose.
        experts: how many there are.
    """

    module: str
    tokens: int
    flips: int
    floor_flips: int
    excused: int
    margin: float | None
    unused: tuple[int, ...]
    experts: int


def routers_of(taps: Mapping[str, Tensor]) -> tuple[Router, ...]:
    """Find the routers: modules that return integers [T, A] together with floats of the same shape, or slots alone.

    A block that chooses by its router's scores itself hands the choice to its experts: it is found at their inputs.

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
    return (*returned, *(_given(tap, taps) for tap in given))


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
    if len(chosen) != 1 or (floats and taps[chosen[0]].shape[-1] > max(taps[n].shape[-1] for n in floats)):
        return
    shape = taps[chosen[0]].shape
    weights = tuple(n for n in floats if taps[n].shape == shape)
    scores = [n for n in floats if taps[n].shape[:-1] == shape[:-1] and taps[n].shape[-1] > shape[-1]]
    if chooses_slots(taps[chosen[0]]) and len(names) == 1 and shape[-1] < shape[-2]:
        yield Router(module=module, indices=chosen[0], weights=(), scores=None, of_slots=True)
    if weights:
        yield Router(module=module, indices=chosen[0], weights=weights, scores=scores[0] if scores else None)


def chooses_slots(tensor: Tensor) -> bool:
    """Whether a module's output are numbers of slots, [B, L, C]: those that each token attends to."""
    return tensor.dtype in (torch.int32, torch.int64) and tensor.ndim == 3


@dataclass(frozen=True, kw_only=True)
class Routing:
    """All routers of a model, and what the reference and the yardstick did there.

    Attributes:
        routers: the routers.
        reference: their taps.
        yardstick: the same in the port's dtype, and its error in the scores where those are tapped.
    """

    routers: tuple[Router, ...]
    reference: Mapping[str, Tensor] = field(repr=False)
    yardstick: Mapping[str, Tensor] = field(repr=False)

    def judge(self, port: Mapping[str, Tensor], dtype: str) -> tuple[dict[str, TapComparison], list[RoutingFacts]]:
        """Judge the port's decisions and weights.

        Args:
            port: its taps, of those routers that it has.
            dtype: of the port.
        """
        comparisons: dict[str, TapComparison] = {}
        facts = []
        for router in self.routers:
            if any(tap not in port for tap in router.taps):
                continue
            if port[router.indices].shape[-1] != self.reference[router.indices].shape[-1]:
                comparisons[router.indices] = failure(router.indices, "another number of experts per token")
                continue
            found, taps = self._judge(router, port, dtype)
            comparisons |= taps
            facts.append(found)
        return comparisons, facts

    def _judge(
        self, router: Router, port: Mapping[str, Tensor], dtype: str
    ) -> tuple[RoutingFacts, dict[str, TapComparison]]:
        own, reference, yardstick = (_sorted(router, values) for values in (port, self.reference, self.yardstick))
        flips_T, floor_flips_T = (
            (side[router.indices] != reference[router.indices]).any(-1) for side in (own, yardstick)
        )
        facts = self._facts(router, (own, reference), (flips_T, floor_flips_T), dtype)
        comparisons = {router.indices: _decision(router, facts)}
        agree_T = ~(flips_T | floor_flips_T)
        # Weights that the port gathers by the decisions are in the order of those that it was forced to.
        forced = _sorted(router, {**port, router.indices: self.reference[router.indices]})
        for tap in router.weights if bool(agree_T.any()) else ():
            each = [token_errors(side[tap][agree_T], reference[tap][agree_T]) for side in (own, forced, yardstick)]
            errors = min(each[:2], key=lambda found: float(found.error_T.sum()))
            comparisons[tap] = judge(tap, errors, each[2], dtype)
        return facts, comparisons

    def _facts(
        self,
        router: Router,
        sides: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
        flips: tuple[Tensor, Tensor],
        dtype: str,
    ) -> RoutingFacts:
        (own, reference), (flips_T, floor_flips_T) = sides, flips
        indices_TA = reference[router.indices]
        leads = self._leads(router, own[router.indices], flips_T, dtype)
        experts = int(indices_TA.max()) + 1 if router.scores is None else self.reference[router.scores].shape[-1]
        used = set(indices_TA.flatten().tolist())
        excused = 0 if leads is None else int((leads <= CONFIDENT_NOISE_MULTIPLE).sum())
        return RoutingFacts(
            module=router.module,
            tokens=indices_TA.shape[0],
            flips=int(flips_T.sum()),
            floor_flips=int(floor_flips_T.sum()),
            excused=excused,
            margin=None if leads is None else float(leads.max()) if leads.numel() else 0.0,
            unused=() if router.of_slots else tuple(expert for expert in range(experts) if expert not in used),
            experts=experts,
        )

    def _leads(self, router: Router, own_TA: Tensor, flips_T: Tensor, dtype: str) -> Tensor | None:
        """By how much the reference preferred its experts, per flipped token, in units of the yardstick's error."""
        if router.scores is None:
            return None
        scores_TX, rough_TX = (_flat(side[router.scores]) for side in (self.reference, self.yardstick))
        chosen_TA = _flat(self.reference[router.indices]).long()
        best_TA = scores_TX.topk(chosen_TA.shape[-1], -1).indices
        if float((best_TA.sort(-1).values == chosen_TA.sort(-1).values).all(-1).double().mean()) < REPRODUCED:
            return None  # chosen by something else than these scores: a bias, or groups of experts
        least_T = scores_TX.gather(-1, chosen_TA).amin(-1)
        own_T = scores_TX.gather(-1, own_TA.long()).amin(-1)
        noise_T = (rough_TX - scores_TX).abs().amax(-1)
        noise_T = noise_T.clamp(min=float(noise_T.median())) + ROUNDING[dtype] * scores_TX.abs().amax(-1)
        return ((least_T - own_T) / noise_T)[flips_T]


def force_rows(routing: Sequence[Mapping[str, Tensor]], tap: str, tensor: Tensor, places: Sequence[range]) -> Tensor:
    """Put the reference's routing in the place of a padded batch's, token by token.

    Args:
        routing: per row of the batch, the reference's taps [L, A] (or [1, L, A]) of all its positions.
        tap: which.
        tensor: the port's [B * L, A] (or [B, L, A]).
        places: per row, the positions that the tensor's tokens stand for; those beyond the row are padding.
    """
    forced = tensor.clone().reshape(len(places), len(places[0]), -1)
    for row, (known, place) in enumerate(zip(routing, places, strict=True)):
        if known[tap].shape[-1] != tensor.shape[-1]:
            continue  # Hugging Face chose among fewer slots than that, so all of them
        values_LA = known[tap].reshape(-1, tensor.shape[-1])[place.start : place.stop]
        forced[row, : len(values_LA)] = values_LA.to(forced)
    return forced.reshape(tensor.shape)


def routing_gate(phase: str, facts: Sequence[RoutingFacts], found: Sequence[TapComparison]) -> Gate:
    """Summarise the decisions of all routers.

    Args:
        phase: see `Gate`.
        facts: about every router.
        found: the comparisons of their decisions.
    """
    flips, floor_flips = sum(each.flips for each in facts), sum(each.floor_flips for each in facts)
    margins = [each.margin for each in facts if each.margin is not None]
    lead = f", by at most {max(margins):.2g} times the noise" if margins and flips else ""
    decisions = sum(each.tokens for each in facts)
    return Gate(
        name="routing.decisions",
        phase=phase,
        verdict=worst(each.verdict for each in found),
        value=float(flips - sum(each.excused for each in facts)),
        threshold=0.0,
        reason=f"{flips} of {decisions} decisions differ from Hugging Face's{lead}, "
        f"{floor_flips} do in its own run; {CONFIDENT_NOISE_MULTIPLE:g} times the noise is a tie",
        source="AWS Neuron injects the reference's routing; three times the noise is derived",
    )


def _sorted(router: Router, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The router's taps with each token's experts in the order of their numbers."""
    indices_TA = _flat(values[router.indices], torch.int64)
    if router.of_slots:
        indices_TA = torch.where(indices_TA > torch.arange(len(indices_TA))[:, None], -1, indices_TA)
    order_TA = indices_TA.argsort(-1)
    sorted_taps = {tap: _flat(values[tap]).gather(-1, order_TA) for tap in router.weights}
    return sorted_taps | {router.indices: indices_TA.gather(-1, order_TA)}


def _flat(tensor: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1]).to("cpu", dtype)


def _decision(router: Router, facts: RoutingFacts) -> TapComparison:
    tap, what = router.indices, "slots" if router.of_slots else "experts"
    said = f"{facts.flips} of {facts.tokens} tokens choose other {what}, {facts.floor_flips} in Hugging Face's own run"
    if facts.margin is None:
        # The margins are unknown, so only the number of decisions that differ can be judged.
        verdict = ROUTING_FLIPS.judge(facts.flips / max(1, facts.floor_flips))
        return TapComparison(name=tap, verdict=verdict, note=f"{said}; by what margin is not known")
    if facts.flips == facts.excused:
        note = f"{said}, by at most {facts.margin:.2g} times the noise" if facts.flips else ""
        return TapComparison(name=tap, verdict=Verdict.PASS, note=note)
    clear = facts.flips - facts.excused
    return failure(tap, f"{said}; {clear} are not near a tie, the clearest by {facts.margin:.3g} times the noise")
