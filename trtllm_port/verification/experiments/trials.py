"""Replay: every known bug is given to Hugging Face's module, on its own input, and the one that makes it the port wins.

[the rule: error at the floor, or ten times smaller with the runner-up five times worse: hypothesis replay, section 7.4]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trtllm_port.huggingface.exact_arithmetic import tensors_as_they_are
from trtllm_port.verification.experiments.catalogue import HYPOTHESES
from trtllm_port.verification.experiments.experiment import IMPOSSIBLE, Experiment
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.judge.thresholds import RATIO
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

FALLS = 10.0
RUNNER_UP = 5.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a hypothesis makes of the error.

    Attributes:
        hypothesis: the known bug.
        variant: its best one.
        before, after: the port's error against Hugging Face as it is, and as it is with the bug.
        noise: Hugging Face's own error there.
        status: "confirmed": the error is at the floor; "likely": it falls tenfold and no other bug does nearly as well;
            "excluded": neither.
    """

    hypothesis: Hypothesis
    variant: Variant
    before: float
    after: float
    noise: float
    status: str

    @property
    def id(self) -> str:
        """Of the kind of cause."""
        return self.variant.id or self.hypothesis.id

    @property
    def cause(self) -> str:
        """The bug in a few words."""
        return self.variant.cause or self.hypothesis.cause


class _Done(Exception):  # no error: the rest of the model need not run
    pass


@torch.no_grad()
def try_hypotheses(
    runner: HuggingFaceRunner,
    ids: Sequence[int],
    module: str,
    targets: Sequence[tuple[str, Tensor, float]],
    hypotheses: Sequence[Hypothesis] = HYPOTHESES,
) -> tuple[Trial, ...]:
    """Try every hypothesis on a module; return those that fit it, best first: what explains the port, then the others.

    Args:
        runner: Hugging Face's model.
        ids: the prompt.
        module: the guilty module; "" is the model itself.
        targets: taps at or inside the module, with the port's value and Hugging Face's own relative error. The first
            decides; a later one decides between bugs that are equally good at the first.
        hypotheses: the known bugs.
    """
    model = runner.model
    found: list[Trial] = []

    def enter(_module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        handle.remove()
        experiment = Experiment(model=model, path=module, args=args, kwargs=kwargs, targets=targets)
        with tensors_as_they_are():
            found.extend(_try_all(experiment, hypotheses))
        raise _Done

    handle = model.get_submodule(module).register_forward_pre_hook(enter, with_kwargs=True)
    try:
        runner.run(torch.tensor([list(ids)]))
    except _Done:
        pass
    finally:
        handle.remove()
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The best variant of a hypothesis."""

    error: float
    order: int
    variant: Variant
    hypothesis: Hypothesis


def _try_all(e: Experiment, hypotheses: Sequence[Hypothesis]) -> list[Trial]:
    before = e.error(e.reference)
    best: dict[str, _Best] = {}
    for order, hypothesis in enumerate(sorted(hypotheses, key=lambda each: each.general)):
        if hypothesis.general and any(each.error <= RATIO.warns * e.noise for each in best.values()):
            continue  # it would explain what a special one explains
        found = _best(e, hypothesis, order)
        if found is not None and hypothesis.settles and found.error <= min(before, RATIO.warns * e.noise):
            best = {hypothesis.id: found}
            break
        known = best.get(hypothesis.id)
        if found is not None and (known is None or found.error < 0.5 * known.error):
            best[hypothesis.id] = found
            e.settled = e.settled or found.error <= e.noise
    return _judged(_decided(e, list(best.values())), before, e.noise)


def _best(e: Experiment, hypothesis: Hypothesis, order: int) -> _Best | None:
    best: _Best | None = None
    try:
        for variant in hypothesis.variants(e):
            try:
                error = e.error(variant.compute())
            except IMPOSSIBLE:
                continue  # this module cannot have that bug
            if best is None or error < 0.5 * best.error:
                best = _Best(error=error, order=order, variant=variant, hypothesis=hypothesis)
            if error <= e.noise:
                break
    except IMPOSSIBLE:
        pass  # this module is of another kind than the hypothesis is about
    return best


def _decided(e: Experiment, found: list[_Best]) -> list[_Best]:
    """Of several that reach the floor, keep those that reach it at the later targets, too."""
    floor = RATIO.warns * e.noise
    for number in range(1, len(e.targets)):
        reached = [each for each in found if each.error <= floor]
        if len(reached) < 2:
            break
        with e.at(number):
            errors = {each.hypothesis.id: _error(e, each.variant) for each in reached}
            kept = {
                name for name, error in errors.items() if error <= max(RATIO.warns * e.noise, 2 * min(errors.values()))
            }
        found = [each for each in found if each.error > floor or each.hypothesis.id in kept]
    return found


def _error(e: Experiment, variant: Variant) -> float:
    try:
        return e.error(variant.compute())
    except IMPOSSIBLE:
        return float("inf")


def _judged(found: list[_Best], before: float, noise: float) -> list[Trial]:
    """Rank: what reaches the floor in the order of the table, then what falls most."""
    floor = RATIO.warns * noise
    ranked = sorted(found, key=lambda each: (max(each.error, floor), each.order))
    trials, explained = [], True
    for place, each in enumerate(ranked):
        after = each.error
        rivals = (other.error for other in ranked[place + 1 :] if not other.hypothesis.general)
        worse = min(rivals, default=float("inf"))
        status = "excluded"
        if explained and after <= floor and after < before:
            status = "confirmed"
        elif explained and place == 0 and before >= FALLS * after and worse >= RUNNER_UP * after:
            status = "likely"
        explained = status != "excluded"
        trial = Trial(
            hypothesis=each.hypothesis, variant=each.variant, before=before, after=after, noise=noise, status=status
        )
        trials.append(trial)
    return trials
