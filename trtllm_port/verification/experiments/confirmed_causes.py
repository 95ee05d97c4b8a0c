"""From the replay of known bugs to causes in a report."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.evidence import free_values
from trtllm_port.verification.causes.locations import WhereToLook
from trtllm_port.verification.experiments.catalogue import HYPOTHESES
from trtllm_port.verification.experiments.port_weights import comparable_parameters, own_weights
from trtllm_port.verification.experiments.trials import Trial, try_hypotheses
from trtllm_port.verification.judge.tap_errors import NO_SUCH_TAP, TapComparison
from trtllm_port.verification.judge.thresholds import ROUNDING
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS, is_input, module_of, nearest_tapped_parent, within
from trtllm_port.verification.taps.pairing import declaration
from trtllm_port.verification.taps.runner import PortRunner

LAYER = re.compile(r"(^|.*\.)\d+\.")
NEAREST = 3  # bugs that are named where none explains the port

Target = tuple[str, Tensor, float]
"""A tap, the port's value, and Hugging Face's own relative error there."""


def with_confirmed_causes(
    causes: Mapping[str, tuple[Cause, ...]],
    runner: HuggingFaceRunner,
    port: PortRunner,
    stimulus: Stimulus,
    expected: Expected,
    own: Mapping[str, TapComparison],
) -> dict[str, tuple[Cause, ...]]:
    """Put what replay finds before what signatures found; what it confirms needs no signature.

    Args:
        causes: per guilty module, by their signatures.
        runner: Hugging Face's model, in the precision that tells most.
        port: in the phase's dtype.
        stimulus: the input.
        expected: the reference.
        own: the comparisons of the injected run.
    """
    decisions, order = expected.recording.forced, expected.recording.order
    targets = {module: targets_of(module, order, own, decisions) for module in causes}
    wanted = {tap for taps in targets.values() for tap in taps}
    values = free_values(port, stimulus, expected, wanted, tuple(causes)) if wanted else {}
    hypotheses = (own_weights(port.weights), *HYPOTHESES)
    found: dict[str, tuple[Cause, ...]] = {}
    for module, guessed in causes.items():
        if _is_absent(module, own):
            found[module] = (_never_called(module, declaration(expected.pairing)),)
            continue
        measured = [
            (tap, values[tap], _noise(tap, module, own, expected))
            for tap in targets[module]
            if tap in values and tap in own
        ]
        trials = try_hypotheses(runner, stimulus.ids, module, measured, hypotheses) if measured else ()
        explaining = [trial for trial in trials if trial.status != "excluded"]
        replayed = [_cause(trial, module, measured[0][0]) for trial in explaining]
        compared = sum(1 for _ in comparable_parameters(port.weights, runner.model, module))
        found[module] = _merged(replayed, guessed) or (_unknown(module, measured, trials, compared),)
    return found


def _is_absent(module: str, own: Mapping[str, TapComparison]) -> bool:
    """Whether the port has nothing of a module."""
    inside = [module] if module in own else [tap for tap in own if within(module_of(tap), module)]
    return bool(inside) and all(own[tap].note == NO_SUCH_TAP for tap in inside)


def _never_called(module: str, declared: str) -> Cause:
    return Cause(
        id="module.left_out",
        cause="a module is not called",
        status="confirmed",
        evidence=(
            f"the port has no tap `{module}`: nothing calls it; "
            f"what the port computes elsewhere its class declares: `{declared}`"
        ),
        place=f"the `forward` that should call `{module}` in `model.py`",
        look=WhereToLook(caller=True),
    )


def targets_of(
    module: str, order: Sequence[str], own: Mapping[str, TapComparison], decisions: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the first tap at or inside the module that is wrong by the module's own fault: there it has just happened.

    And the module's output, unless the module holds layers: what went through many of them says little.
    """
    output = module or LOGITS
    inside = [tap for tap in order if within(module_of(tap), module) or _is_output(tap, module)]
    wrong = [tap for tap in inside if tap in own and own[tap].diverged and (own[tap].metrics or tap in decisions)]
    first = [tap for tap in wrong if _is_output(tap, module) or (is_input(tap) and _caller(tap, own) == module)][:1]
    holds_layers = any(within(module_of(tap), module) and LAYER.match(module_of(tap)[len(module) :]) for tap in inside)
    last = [output] if first and first[0] != output and output in own and not holds_layers else []
    return (*first, *last)


def _is_output(tap: str, module: str) -> bool:
    """Whether a tap is any of the outputs of a module."""
    return module_of(tap) == module and not is_input(tap)


def _caller(tap: str, own: Mapping[str, TapComparison]) -> str:
    parent = nearest_tapped_parent(module_of(tap), own)
    return "" if parent == LOGITS else parent


def _noise(tap: str, module: str, own: Mapping[str, TapComparison], expected: Expected) -> float:
    """Return Hugging Face's own error at a tap; its parts' where that is more, for a bug may leave nothing but a part.

    Two roundings at least: with the bug, a value may be rounded once more.
    """
    comparison = own[tap]
    if comparison.metrics is None:  # of choices the share that is another one: a few are near a tie
        return 1.0 / expected.recording.taps[tap].shape.numel()
    noise = 0.0
    if comparison.metrics is not None and comparison.ratio:
        noise = comparison.metrics.rel_l2 / comparison.ratio
    parts = (each.floor.rel_l2 for name, each in own.items() if within(module_of(name), module) and each.floor)
    return max(noise, 2 * ROUNDING[expected.dtype], *parts, 0.0)


def _merged(replayed: Sequence[Cause], guessed: Sequence[Cause]) -> tuple[Cause, ...]:
    if any(cause.status == "confirmed" for cause in replayed):
        return tuple(replayed)
    return (*replayed, *guessed)


def _unknown(module: str, measured: Sequence[Target], trials: Sequence[Trial], compared: int) -> Cause:
    """Say what was excluded, by what it makes of the error; `compared` parameters were found equal, or are a trial."""
    evidence = "none of its taps can be compared number by number"
    if trials:
        tap, before, noise = measured[0][0], trials[0].before, trials[0].noise
        nearest = ", ".join(f"{trial.cause} ({trial.after:.3g})" for trial in trials[:NEAREST])
        evidence = (
            f"{len(trials)} kinds of known bugs were given to Hugging Face's module; none makes the error of "
            f"{before:.3g} at `{tap}` as small as the floor of {noise:.3g}. Nearest came: {nearest}"
        )
    if compared and not any(trial.hypothesis.settles for trial in trials):
        evidence += f". Its weights are Hugging Face's to the last bit ({compared} tensors)"
    return Cause(cause="unknown", status="unknown", evidence=evidence, place=f"`{module or 'the model'}` in `model.py`")


def _cause(trial: Trial, module: str, tap: str) -> Cause:
    return Cause(
        id=trial.id,
        cause=trial.cause,
        status=trial.status,
        evidence=(
            f"the port computes what Hugging Face computes {trial.variant.detail}: "
            f"the error at `{tap}` falls from {trial.before:.3g} to {trial.after:.3g}, the floor is {trial.noise:.3g}"
        ),
        place=f"`{module}` in `model.py`, its weights in `convert.py`",
        look=WhereToLook(
            patterns=tuple(pattern for pattern in (trial.variant.look, *trial.hypothesis.look) if pattern),
            elsewhere=trial.hypothesis.elsewhere,
            number=trial.variant.number,
            parameter=trial.variant.parameter,
        ),
    )
