"""Mixtures of experts: decisions are compared first, values second.

A router that returns the indices of a token's experts decides, and near a tie two precise computations decide
differently: everything after it differs for that token, and nothing is wrong. So the indices are compared as sets, with
the margin by which the reference preferred its own; and every run continues with the reference's routing, so that
values are compared on equal terms.

T tokens, A experts of one token, X experts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.metrics import token_errors
from trtllm_port.verification.judge.rounded_inputs import judge_rounding
from trtllm_port.verification.judge.tap_errors import TapComparison, failure, judge
from trtllm_port.verification.judge.thresholds import CONFIDENT_NOISE_MULTIPLE, ROUNDING, ROUTING_FLIPS
from trtllm_port.verification.judge.verdict import Verdict, worst
from trtllm_port.verification.taps.routers import Router

JUMP = 32.0  # times the usual error of a token's weights: not rounded, but decided
REPRODUCED = 0.99  # so many tokens' experts must the scores' largest be, for margins of the scores to mean anything


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
            port: its taps, of those routers that it has; with the scores, where it has a tap of them.
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
            if router.rounded is not None:
                sides = (port[router.indices], self.reference[router.indices], self.yardstick[router.indices])
                comparisons[router.indices] = judge_rounding(router.indices, router.rounded, sides)
                continue
            found, taps = self._judge(router, port, dtype)
            comparisons |= taps
            facts.append(found)
        return comparisons, facts

    def _judge(
        self, router: Router, port: Mapping[str, Tensor], dtype: str
    ) -> tuple[RoutingFacts, dict[str, TapComparison]]:
        experts = [_experts(router, values) for values in (port, self.reference, self.yardstick)]
        own_TA, reference_TA, yardstick_TA = (experts_TA.sort(-1).values for experts_TA in experts)
        flips_T, floor_flips_T = ((side_TA != reference_TA).any(-1) for side_TA in (own_TA, yardstick_TA))
        leads = self._leads(router, port, (own_TA, reference_TA), flips_T, dtype)
        facts = self._facts(router, reference_TA, (flips_T, floor_flips_T), leads)
        comparisons = {router.indices: _decision(router, facts)}
        agree_T = ~(flips_T | floor_flips_T)
        for tap in router.weights if bool(agree_T.any()) else ():
            given = [_flat(values[tap]) for values in (port, self.reference, self.yardstick)]
            # Weights that the port gathers by the decisions are in the order of those that it was forced to.
            pairs = [*zip(given, experts, strict=True), (given[0], experts[1])]
            own, reference, yardstick, forced = (_in_order(router, *pair)[agree_T] for pair in pairs)
            nearest = min((own, forced), key=lambda side: float(token_errors(side, reference).error_T.sum()))
            found = replace(_judge_weights(tap, (nearest, reference, yardstick), dtype), forced=True)
            decided = comparisons.get(tap)  # of weights of all experts, which tell the choice, too
            if decided is None or (not decided.diverged and worst([found.verdict, decided.verdict]) is found.verdict):
                comparisons[tap] = found
        return facts, comparisons

    def _facts(
        self, router: Router, indices_TA: Tensor, flips: tuple[Tensor, Tensor], leads: Tensor | None
    ) -> RoutingFacts:
        flips_T, floor_flips_T = flips
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

    def _leads(
        self,
        router: Router,
        port: Mapping[str, Tensor],
        sides: tuple[Tensor, Tensor],
        flips_T: Tensor,
        dtype: str,
    ) -> Tensor | None:
        """By how much the reference preferred its experts, per flipped token, in units of the noise.

        The noise is the yardstick's error at the token. Few tokens err far more than most, and which ones they are is
        chance: where the port's scores err more than the yardstick's there, their error counts, as far as the yardstick
        errs as much at any token. The scores themselves are judged as values, and a choice that is not the best by
        scores that are right is not excused by them.
        """
        if router.scores is None:
            return None
        scores_TX, rough_TX = (_flat(side[router.scores]) for side in (self.reference, self.yardstick))
        own_TA, chosen_TA = sides
        best_TA = scores_TX.topk(chosen_TA.shape[-1], -1).indices
        if float((best_TA.sort(-1).values == chosen_TA).all(-1).double().mean()) < REPRODUCED:
            return None  # chosen by something else than these scores: a bias, or groups of experts
        least_T = scores_TX.gather(-1, chosen_TA).amin(-1)
        own_T = scores_TX.gather(-1, own_TA).amin(-1)
        noise_T = (rough_TX - scores_TX).abs().amax(-1)
        largest, noise_T = float(noise_T.max()), noise_T.clamp(min=float(noise_T.median()))
        if router.scores in port:
            error_T = (_flat(port[router.scores]) - scores_TX).abs().amax(-1)
            noise_T = noise_T.maximum(error_T.clamp(max=largest))
        noise_T = noise_T + ROUNDING[dtype] * scores_TX.abs().amax(-1)
        return ((least_T - own_T) / noise_T)[flips_T]


def force_rows(routing: Sequence[Mapping[str, Tensor]], tap: str, tensor: Tensor, places: Sequence[range]) -> Tensor:
    """Put the reference's routing in the place of a padded batch's, token by token.

    Args:
        routing: per row of the batch, the reference's taps [L, A] (or [1, L, A]) of all its positions.
        tap: which.
        tensor: the port's [B * L, A] (or [B, L, A]); or of all S slots of a cache, [B, S, A].
        places: per row, the positions that the tensor's tokens stand for; those beyond the row are padding.
    """
    length = tensor.numel() // (len(places) * tensor.shape[-1])
    if length != len(places[0]):  # of all slots of a cache, the first of which are of the first positions
        places = [range(length)] * len(places)
    forced = tensor.clone().reshape(len(places), length, -1)
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


def _experts(router: Router, values: Mapping[str, Tensor]) -> Tensor:
    """The numbers [T, A] of each token's experts."""
    if router.chosen is not None:
        return _flat(values[router.indices]).abs().topk(router.chosen, -1).indices
    indices_TA = _flat(values[router.indices], torch.int64)
    if router.of_slots:
        indices_TA = torch.where(indices_TA > torch.arange(len(indices_TA))[:, None], -1, indices_TA)
    return indices_TA


def _in_order(router: Router, weights_TA: Tensor, experts_TA: Tensor) -> Tensor:
    """Weights in the order of the experts' numbers, as those of all experts [T, X] are."""
    return weights_TA if router.chosen is not None else weights_TA.gather(-1, experts_TA.argsort(-1))


def _flat(tensor: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1]).to("cpu", dtype)


def _judge_weights(tap: str, sides: tuple[Tensor, Tensor, Tensor], dtype: str) -> TapComparison:
    """Judge the weights [T, A] of port, reference and yardstick, of tokens that all of them give to the same experts.

    Some routers decide more than which experts are asked: PhiMoE's leaves out of a softmax what is below a threshold.
    In 16 bits a few tokens may be on its other side, as with experts near a tie; their number is judged as there, and
    the rest by what they are. In float32, as which every port is judged too, all of them count.
    """
    own, reference, yardstick = sides
    errors, floor = token_errors(own, reference), token_errors(yardstick, reference)
    own_T, floor_T = ((each.error_T / each.reference_T).sqrt() for each in (errors, floor))
    usual = JUMP * max(float(floor_T.quantile(0.95)), ROUNDING[dtype])
    jumps, floor_jumps = int((own_T > usual).sum()), int((floor_T > usual).sum())
    verdict = ROUTING_FLIPS.judge(jumps / max(1, floor_jumps))
    steady_T = (own_T <= usual) & (floor_T <= usual)
    if dtype == "float32" or not jumps or verdict is Verdict.FAIL or not bool(steady_T.any()):
        return judge(tap, errors, floor, dtype)
    steady, steady_floor = (token_errors(side[steady_T], reference[steady_T]) for side in (own, yardstick))
    found = judge(tap, steady, steady_floor, dtype)
    said = f"{jumps} of {len(own_T)} tokens weigh their experts otherwise, {floor_jumps} in Hugging Face's own run"
    return replace(found, verdict=worst([found.verdict, verdict]), note=f"{said}; {found.note}".rstrip("; "))


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
