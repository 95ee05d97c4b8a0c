"""From the phases' results to a report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.foundation.quoting import shell_command
from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.locations import Excerpt, Place, WhereToLook, excerpt_of, map_entry, place_of
from trtllm_port.verification.causes.source_tree import PortCode, Sources
from trtllm_port.verification.decode.step_divergence import generation_cause
from trtllm_port.verification.judge.gates import LOSS, Gate
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.judge.thresholds import ROUNDING
from trtllm_port.verification.judge.verdict import Verdict, overall
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.report.report import Divergence, Report, Subject, TapReport, metric_values
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.sides.preparation import Model
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.layer_groups import group_across_layers
from trtllm_port.verification.taps.names import LOGITS, ROOT, input_of, is_input, module_of, parent_of, within

POSITION_BINS = 32
NO_OPTIONS: Mapping[str, None] = {}
VERSIONED = ("trtllm-port", "torch", "transformers", "safetensors", "tensorrt-rtx-cu13", "tensorrt", "tokenizers")


def subject_of(model: Model) -> Subject:
    """Say what is verified."""
    return Subject(
        model=str(model.given),
        architecture=model.architecture,
        port=model.port.name,
        port_digest=model.port.digest,
        dtype=model.dtype,
        random_weights=model.random_weights,
        seed=model.seed,
    )


def report_of(
    phases: Sequence[PhaseResult], gates: tuple[Gate, ...], subject: Subject, stimulus: Stimulus, code: PortCode | None
) -> Report:
    """Return a report of what the phases found by numbers; it says nothing of causes, nor of how to repeat them.

    Args:
        phases: in the order of running.
        gates: those of the phases, and any others.
        subject: what was verified.
        stimulus: what was fed.
        code: the port's source; None: it is not at hand.
    """
    verdict, divergences = verdict_of(gates), divergences_of(phases, code)
    first = divergences[0] if divergences else None
    return Report(
        kind="diff-layers",
        verdict=verdict,
        summary=summary(verdict, divergences, gates, subject.dtype),
        subject=subject,
        executor=phases[-1].executor,
        reference={phase.phase.name: f"{phase.facts.name}; floor: {phase.yardstick}" for phase in phases},
        stimulus=stimulus.to_dict(),
        first_divergence=None if first is None else first.module,
        divergence=first,
        divergences=divergences,
        causes=(),
        stages=(),
        gates=gates,
        taps=tap_reports(phases),
        ignored=phases[-1].ignored,
        position_profile=position_profile(phases),
        not_exercised=(),
        versions=versions(),
        commands=(),
        seconds=0.0,
    )


def tap_reports(phases: Sequence[PhaseResult]) -> tuple[TapReport, ...]:
    """Merge the phases: one entry per tap, in Hugging Face's execution order."""
    own, logic = phases[-1], phases[0] if len(phases) > 1 else None
    names = [tap for tap in own.order if tap in own.taps]
    names += [tap for tap in own.taps if tap not in own.order]
    return tuple(_tap_report(tap, own, logic) for tap in names)


def _tap_report(tap: str, own: PhaseResult, logic: PhaseResult | None) -> TapReport:
    found = [own.taps[tap]]
    if logic is not None and tap in logic.taps:
        found.append(logic.taps[tap])
    injected = [phase.own[tap] for phase in (own, logic) if phase is not None and tap in phase.own]
    severest = max([*found, *injected], key=lambda each: list(Verdict).index(each.verdict))
    facts = own.facts.modules.get(module_of(tap))
    return TapReport(
        name=tap,
        class_name="" if facts is None else facts.class_name,
        verdict=severest.verdict,
        note=severest.note,
        metrics=metric_values(found[0]),
        logic=metric_values(found[1]) if len(found) > 1 else None,
        own=_own_values(tap, own),
        logic_own=None if logic is None else _own_values(tap, logic),
        positions=_position_ratios(tap, own),
    )


def _own_values(tap: str, phase: PhaseResult) -> dict[str, float | None] | None:
    return metric_values(phase.own[tap]) if tap in phase.own else None


def _position_ratios(tap: str, phase: PhaseResult) -> tuple[float, ...]:
    if tap not in phase.tokens or is_input(tap):
        return ()
    rounding = ROUNDING[phase.phase.dtype]
    pairs = zip(binned(phase.tokens[tap]), binned(phase.floor_tokens[tap]), strict=True)
    return tuple(float(f"{error / max(floor, rounding):.3g}") for error, floor in pairs)


def divergences_of(phases: Sequence[PhaseResult], code: PortCode | None) -> tuple[Divergence, ...]:
    """Return where the port differs, by the first phase that finds something: the logic phase's floor is the lowest.

    Args:
        phases: all phases.
        code: the port's source, None where it is not at hand.
    """
    phase = next((phase for phase in phases if phase.divergences), None)
    if phase is None:
        return ()
    return tuple(_divergence(phase, module, _causes(module, phase, phases, code)) for module in phase.divergences)


def _divergence(phase: PhaseResult, module: str, causes: tuple[Cause, ...]) -> Divergence:
    taps, tap = _tap_at(phase, module)
    comparison = taps[tap]
    facts = phase.facts.modules.get(module)
    inherited = phase.taps.get(input_of(module)) if module != ROOT else None
    compared = [name for name in phase.order if name in phase.taps]
    earlier = compared[: compared.index(tap)] if tap in compared else []
    return Divergence(
        module=module or phase.facts.root,
        class_name=phase.facts.root if facts is None else facts.class_name,
        phase=phase.phase.name,
        tap=tap,
        rel_l2=None if comparison.metrics is None else comparison.metrics.rel_l2,
        floor=None if comparison.floor is None else comparison.floor.rel_l2,
        ratio=comparison.ratio,
        end_to_end=phase.taps[tap].ratio if tap in phase.taps else None,
        inherited=None if inherited is None else inherited.ratio,
        order=sum(phase.taps[name].verdict is Verdict.PASS for name in earlier),
        note=comparison.note,
        causes=causes,
    )


def _tap_at(phase: PhaseResult, module: str) -> tuple[Mapping[str, TapComparison], str]:
    """Return the guilty module's own tap or else the first failing one inside it, by the injected run if that fails."""
    output = module or LOGITS
    for taps in (phase.own, phase.taps, phase.steps):
        failing = [tap for tap in (*phase.order, *taps) if tap in taps and taps[tap].diverged]
        own = [tap for tap in failing if module_of(tap) == module and not is_input(tap)]
        inside = own + [tap for tap in failing if within(module_of(tap), module)]
        if output in inside:
            return taps, output
        if inside:
            return taps, inside[0]
    return phase.taps, next(
        tap for tap in (*phase.order, *phase.taps) if tap in phase.taps and phase.taps[tap].diverged
    )


def causes_of(phases: Sequence[PhaseResult], divergences: Sequence[Divergence]) -> tuple[Cause, ...]:
    """Return the hypotheses about the first divergence, best first; or about its use if there is none."""
    if divergences:
        return divergences[0].causes
    cause = generation_cause([gate for phase in phases for gate in phase.gates])
    return () if cause is None else (cause,)


def excerpts_of(phases: Sequence[PhaseResult], code: PortCode) -> tuple[Excerpt, ...]:
    """Return the lines of the first divergence: the port's that its first cause points at, then Hugging Face's."""
    phase = next((phase for phase in phases if phase.divergence is not None), None)
    if phase is None or phase.divergence is None:
        return ()
    module, names = phase.divergence, class_names(phase.facts)
    look = WhereToLook(child=_first_wrong_inside(phase, module))
    causes = phase.causes.get(module, ())
    own = (_place(causes[0], module, phase, code) if causes else None) or place_of(code.sources(names), module, look)
    return _excerpts(own, module, phase.facts, look)


def excerpts_at(module: str, code: PortCode, facts: HuggingFaceFacts) -> tuple[Excerpt, ...]:
    """Return the lines that a module is written in, the port's and Hugging Face's, as far as the sources show them."""
    return _excerpts(place_of(code.sources(class_names(facts)), module), module, facts, WhereToLook())


def _excerpts(own: Place | None, module: str, facts: HuggingFaceFacts, look: WhereToLook) -> tuple[Excerpt, ...]:
    files = () if facts.source is None else (facts.source,)
    places = {"port": own, "hugging_face": place_of(Sources(files, facts.root, class_names(facts)), module, look)}
    return tuple(excerpt_of(side, place) for side, place in places.items() if place is not None)


def class_names(facts: HuggingFaceFacts) -> dict[str, str]:
    """Return Hugging Face's class of every module, the model itself included."""
    return {path: each.class_name for path, each in facts.modules.items()} | {ROOT: facts.root}


def _first_wrong_inside(phase: PhaseResult, module: str) -> str | None:
    for taps in (phase.own, phase.taps):
        for tap in phase.order:
            if tap in taps and taps[tap].diverged and within(module_of(tap), module):
                return module_of(tap).removeprefix(f"{module}.")
    return None


def _causes(module: str, phase: PhaseResult, phases: Sequence[PhaseResult], code: PortCode | None) -> tuple[Cause, ...]:
    """Return the hypotheses about a guilty module, with the lines of the port to look at."""
    causes = phase.causes.get(module, ())
    if causes and phase.phase.name != "logic":
        causes = (*causes, *_precision_cause(phases))
    return causes if code is None else tuple(_placed(cause, module, phase, code) for cause in causes)


def _placed(cause: Cause, module: str, phase: PhaseResult, code: PortCode) -> Cause:
    place, parameter = _place(cause, module, phase, code), cause.look.parameter
    if not parameter:
        return cause if place is None else replace(cause, place=str(place))
    if place is not None and code.map_key(parameter):
        return replace(cause, place=f"{place}, which makes `{parameter}`")
    taken = f"the checkpoint: `{parameter}` is taken from it as it is"
    return replace(cause, place=taken if place is None else f"{place}, which has no entry for it, and at {taken}")


def _place(cause: Cause, module: str, phase: PhaseResult, code: PortCode) -> Place | None:
    """Where a cause is to be looked for: a wrong parameter where it is made, anything else in the module's class."""
    sources = code.sources(class_names(phase.facts))
    if cause.look.parameter:
        return map_entry(sources, code.map_key(cause.look.parameter))
    if cause.look.caller:
        return place_of(sources, parent_of(module), WhereToLook(child=module.rpartition(".")[2]))
    return place_of(sources, module, replace(cause.look, child=_first_wrong_inside(phase, module)))


def _precision_cause(phases: Sequence[PhaseResult]) -> tuple[Cause, ...]:
    if len(phases) < 2:
        return ()
    dtype = phases[-1].phase.dtype
    return (
        Cause(
            cause=f"precision: a step that Hugging Face computes in float32 runs in {dtype}, or the reverse",
            status="likely",
            evidence=f"the same network is right in float32 and worse than Hugging Face in {dtype}",
            place="casts (`float()`, `to`) in the module's class in `model.py`",
        ),
    )


def position_profile(phases: Sequence[PhaseResult]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the logits' error over the positions, port and floor, per phase."""
    profile = {}
    for phase in phases:
        if LOGITS in phase.tokens:
            profile[phase.phase.name] = {
                "port": binned(phase.tokens[LOGITS]),
                "floor": binned(phase.floor_tokens[LOGITS]),
            }
    return profile


def binned(values_T: Tensor, bins: int = POSITION_BINS) -> tuple[float, ...]:
    """Return the root mean square over up to `bins` groups of neighbouring positions."""
    groups = values_T.double().square().tensor_split(min(bins, values_T.numel()))
    return tuple(float(f"{float(group.mean().sqrt()):.3g}") for group in groups)


def summary(verdict: Verdict, divergences: Sequence[Divergence], gates: Sequence[Gate], dtype: str) -> str:
    """Say the outcome in one sentence."""
    if divergences:
        first, more = divergences[0], len(group_across_layers([each.module for each in divergences])) - 1
        numbers = "" if first.ratio is None else f", {_times(first.ratio)} times Hugging Face's own error"
        note = f" ({first.note})" if first.note else ""
        others = f"; {more} more {'module is' if more == 1 else 'modules are'} wrong, too" if more else ""
        return f"the port first differs from Hugging Face at `{first.module}`{numbers}{note}{others}"
    failed = [gate for gate in gates if gate.verdict is verdict]
    if verdict is Verdict.PASS:
        warned = sum(gate.verdict is Verdict.WARN for gate in gates)
        return f"the port is as close to Hugging Face as Hugging Face in {dtype} is to itself" + (
            f", with {warned} {'warning' if warned == 1 else 'warnings'}" if warned else ""
        )
    if verdict is Verdict.CANNOT_TELL:
        reason = failed[0].reason.partition(";")[0] if failed else "no question could be asked"
        return f"the port cannot be judged: {reason}"
    if all(gate.phase == LOSS for gate in failed):
        return f"no gate of the port fails, but {failed[0].reason}"
    return f"the port differs from Hugging Face at {', '.join(gate.name for gate in failed[:4])}"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{float(f'{ratio:.3g}'):,.0f}"


def versions() -> dict[str, str]:
    """Return the versions of everything that took part."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["torch"] = str(torch.__version__)
    return found


def verdict_of(gates: Sequence[Gate]) -> Verdict:
    """Return the verdict of all gates together."""
    return overall(gate.verdict for gate in gates)


def command(name: str, model: Model, options: Mapping[str, str | int | Path | None] = NO_OPTIONS) -> str:
    """Return the command line that repeats a run; an option without a value is left out."""
    words: list[object] = ["trtllm-port", name, model.given, "--workspace", model.workspace, "--dtype", model.dtype]
    if model.random_weights:
        words.append("--random-weights")
    words += _quantization(model)
    for option, value in options.items():
        if value:
            words += [f"--{option}", value]
    return shell_command(words)


def convert_command(model: Model) -> str:
    """Return the command line that converts a model as it was verified."""
    words: list[object] = ["trtllm-port", "convert", "--model-dir", model.given, "--output-dir", "CKPT"]
    words += ["--workspace", model.workspace, "--dtype", model.dtype, *_quantization(model)]
    return shell_command(words)


def _quantization(model: Model) -> list[object]:
    if model.quantize is None:
        return []
    excluded = [word for pattern in model.quantize.exclude_modules for word in ("--exclude-modules", pattern)]
    return ["--quant-algo", model.quantize.algorithm, "--group-size", model.quantize.group_size, *excluded]
