"""From the replay of known bugs to causes in a report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trtllm_port.verification.causes import Cause
from trtllm_port.verification.compare import NO_SUCH_TAP, TapComparison
from trtllm_port.verification.elsewhere import declaration
from trtllm_port.verification.evidence import free_values
from trtllm_port.verification.experiments import Trial, replay
from trtllm_port.verification.hugging_face import HuggingFaceRunner
from trtllm_port.verification.ports import Expected
from trtllm_port.verification.runners import PortRunner
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS, is_input, module_of, nearest_tapped_parent, within
from trtllm_port.verification.thresholds import ROUNDING

LAYER = re.compile(r"(^|.*\.)\d+\.")


def with_replay(
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
    targets = {module: targets_of(module, expected.recording.order, own) for module in causes}
    wanted = {tap for taps in targets.values() for tap in taps}
    values = free_values(port, stimulus, expected, wanted, tuple(causes)) if wanted else {}
    found: dict[str, tuple[Cause, ...]] = {}
    for module, guessed in causes.items():
        if module in own and own[module].note == NO_SUCH_TAP:
            found[module] = (_never_called(module, declaration(expected.pairing)),)
            continue
        measured = [
            (tap, values[tap], _noise(tap, module, own, expected))
            for tap in targets[module]
            if tap in values and tap in own
        ]
        trials = replay(runner, stimulus.ids, module, measured) if measured else ()
        found[module] = _merged([_cause(trial, module, measured[0][0]) for trial in trials], guessed)
    return found


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
    )


def targets_of(module: str, order: Sequence[str], own: Mapping[str, TapComparison]) -> tuple[str, ...]:
    """Return the first tap at or inside the module that is wrong by the module's own fault: there it has just happened.

    And the module's output, unless the module holds layers: what went through many of them says little.
    """
    output = module or LOGITS
    inside = [tap for tap in order if within(module_of(tap), module) or tap == output]
    wrong = [tap for tap in inside if tap in own and own[tap].diverged and own[tap].metrics is not None]
    first = [tap for tap in wrong if tap == output or (is_input(tap) and _caller(tap, own) == module)][:1]
    holds_layers = any(within(module_of(tap), module) and LAYER.match(module_of(tap)[len(module) :]) for tap in inside)
    last = [output] if first and first[0] != output and output in own and not holds_layers else []
    return (*first, *last)


def _caller(tap: str, own: Mapping[str, TapComparison]) -> str:
    parent = nearest_tapped_parent(module_of(tap), own)
    return "" if parent == LOGITS else parent


def _noise(tap: str, module: str, own: Mapping[str, TapComparison], expected: Expected) -> float:
    """Return Hugging Face's own error at a tap; its parts' where that is more, for a bug may leave nothing but a part.

    Two roundings at least: with the bug, a value may be rounded once more.
    """
    comparison = own[tap]
    noise = 0.0
    if comparison.metrics is not None and comparison.ratio:
        noise = comparison.metrics.rel_l2 / comparison.ratio
    parts = (each.floor.rel_l2 for name, each in own.items() if within(module_of(name), module) and each.floor)
    return max(noise, 2 * ROUNDING[expected.dtype], *parts, 0.0)


def _merged(replayed: Sequence[Cause], guessed: Sequence[Cause]) -> tuple[Cause, ...]:
    if any(cause.status == "confirmed" for cause in replayed):
        return tuple(replayed)
    return (*replayed, *(cause for cause in guessed if not replayed or cause.status != "unknown"))


def _cause(trial: Trial, module: str, tap: str) -> Cause:
    return Cause(
        id=trial.hypothesis.id,
        cause=trial.cause,
        status=trial.status,
        evidence=(
            f"the port computes what Hugging Face computes {trial.detail}: "
            f"the error at `{tap}` falls from {trial.before:.3g} to {trial.after:.3g}, the floor is {trial.noise:.3g}"
        ),
        place=f"`{module}` in `model.py`, its weights in `convert.py`",
    )
