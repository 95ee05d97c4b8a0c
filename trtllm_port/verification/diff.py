"""`diff-layers`: every module of Hugging Face against every module of the port, on the same input.

Requires: a model directory (its `config.json` alone suffices with random weights) and a registered port for it.
Ensures: a report; with a report directory also `report.json`, `report.html` and `junit.xml` in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.bundle.save import check_target, save_bundle
from trtllm_port.verification.calibration import with_calibration
from trtllm_port.verification.causes.source_tree import PortCode
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.phases.large_models import (
    first_layers,
    is_large,
    open_mapped,
    shortened,
    stored_dtype,
    what_is_left_out,
    without_batch,
)
from trtllm_port.verification.phases.lockstep import run_phase_in_lockstep
from trtllm_port.verification.phases.not_exercised import NotExercised, not_exercised
from trtllm_port.verification.phases.phase import PhaseResult, run_phase
from trtllm_port.verification.report.assembly import causes_of, command, excerpts_of, report_of, subject_of
from trtllm_port.verification.report.finish import finish
from trtllm_port.verification.report.port_faults import blame
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import LoadHuggingFace
from trtllm_port.verification.sides.mapped_weights import return_freed_memory
from trtllm_port.verification.sides.preparation import (
    Model,
    PortOptions,
    hugging_face_loader,
    network_of,
    open_port,
    opened_model,
    prepare_port,
    settle_dtype,
    stimulus_of,
)
from trtllm_port.verification.sides.provenance import require_engine_of
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.precisions import Phase, phases_of
from trtllm_port.verification.stimulus.settings import DiffSettings
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.tokenizer_gates import token_gates

DEFAULTS = DiffSettings()


def diff_layers(
    model_dir: Path,
    *,
    report_dir: Path | None = None,
    settings: DiffSettings = DEFAULTS,
    progress: Progress | None = None,
    **port: Unpack[PortOptions],
) -> Report:
    """Compare a port with Hugging Face, module by module.

    Args:
        model_dir: a Hugging Face model directory.
        report_dir: where the report is written; None writes nothing.
        settings: everything else.
        progress: called with (phase, done, total).
        port: which port, and with which weights, by default the current directory's in the checkpoint's dtype.

    Raises:
        PortError: the model, the port or a file cannot be used. A difference is not an error but the verdict.
    """
    started = time.perf_counter()
    check_target(settings.save, [model_dir, settings.engine_dir], report_dir)
    settings = with_calibration(settings)
    with opened_model(model_dir, settings, progress, **port) as (model, work):
        if settings.engine_dir is not None:
            require_engine_of(settings.engine_dir, model.converted)
        try:
            comparison = compare_model(model, work, settings, progress)
            model = comparison.model
            report = diff_report(comparison)
            save(comparison, report, work, settings)
        except Exception as error:  # raised again unless the port is to blame
            report = blame(model, error)
    options = {"tokens": settings.tokens, "prompt-file": settings.prompt_file, "engine-dir": settings.engine_dir}
    report = replace(report, commands=(command("diff-layers", model, options),))
    return finish(report, started, report_dir)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of a model with its port, phase by phase; `tokens` are the gates before any number."""

    model: Model
    stimulus: Stimulus
    tokens: tuple[Gate, ...]
    phases: tuple[PhaseResult, ...]
    left_out: tuple[NotExercised, ...] = ()


def compare_model(model: Model, work: Path, settings: DiffSettings, progress: Progress | None = None) -> Comparison:
    """Run all phases.

    Args:
        model: the model and its port.
        work: an existing directory for checkpoints and networks.
        settings: prompt, device and so on; `engine_dir` names the network to compare in the port's own dtype.
        progress: called with (phase, done, total).
    """
    own = None
    if settings.engine_dir is not None:
        own = open_port(settings.engine_dir, backend="reference", device=settings.device)
    # A bundle holds sketches of the whole model in both phases, and that wants all of it in memory.
    large = is_large(model) and settings.device == "cpu" and settings.save is None
    if large:
        return_freed_memory()
    if large and own is None:
        model = stored_dtype(model)
    model = settle_dtype(model, work, own, progress)
    longest = model.longest if own is None else min(model.longest, own.session.max_input_len)
    stimulus = stimulus_of(model, settings, longest)

    def port(part: Model, phase: Phase) -> SessionRunner:
        if own is not None and phase.dtype == model.dtype:
            return own
        size = {"length": len(stimulus.ids), "rows": max(1, len(stimulus.rows))}
        if large and stored_dtype(replace(part, dtype="auto")).dtype == phase.dtype:
            return open_mapped(part, phase.dtype, **size)
        return prepare_port(part, phase.dtype, work, **size, device=settings.device, progress=progress)

    phases: list[PhaseResult] = []
    left_out: tuple[NotExercised, ...] = ()
    wanted = phases_of(model.dtype)
    for phase in wanted if settings.logic else wanted[-1:]:
        part, fed = model, stimulus
        if large and phase.dtype != model.dtype:
            part = first_layers(model, work)
            fed = shortened(stimulus, part.vocab_size)
            left_out = what_is_left_out(model, part)
        elif left_out:
            fed = without_batch(stimulus)
        load: LoadHuggingFace = hugging_face_loader(part, settings.device)
        if large:
            trusted = part.trust_remote_code
            load = partial(HuggingFaceRunner.stream, part.source, trust_remote_code=trusted, weights=part.in_memory)
        run = run_phase_in_lockstep if large and not fed.rows else run_phase
        phases.append(run(phase, load, port(part, phase), fed, progress))
    if large and model.source != model.converted:
        reason = "the model is large: both sides have what their codes stand for"
        left_out = (*left_out, NotExercised(what="quantized weights", reason=reason))
    if not settings.logic and len(wanted) > 1:
        reason = "it was not asked for: the comparison in float32 makes it"
        left_out = (*left_out, NotExercised(what="the logic phase", reason=reason))
    tokens = token_gates(model.given, model.vocab_size, trust_remote_code=model.trust_remote_code)
    return Comparison(model=model, stimulus=stimulus, tokens=tuple(tokens), phases=tuple(phases), left_out=left_out)


def save(comparison: Comparison, report: Report, work: Path, settings: DiffSettings) -> None:
    """Save a bundle, if one is wanted, of the networks that were compared."""
    if settings.save is None:
        return
    model = comparison.model
    phases = [result.phase for result in comparison.phases]
    networks = {phase.dtype: network_of(work, phase.dtype) for phase in phases}
    if settings.engine_dir is not None:
        networks[model.dtype] = settings.engine_dir
    save_bundle(
        settings.save, report, comparison.stimulus, phases, hugging_face_loader(model, settings.device), networks
    )


def diff_report(comparison: Comparison) -> Report:
    """Turn a comparison into a report, without commands and time."""
    model, stimulus, phases = comparison.model, comparison.stimulus, comparison.phases
    gates = (*comparison.tokens, *(gate for phase in phases for gate in phase.gates))
    code = PortCode(model.port.packages, model.port.cls)
    report = report_of(phases, gates, subject_of(model), stimulus, code)
    not_shown = not_exercised(
        model.config,
        stimulus,
        phases,
        gates,
        random_weights=model.random_weights,
        quantized=model.quantized,
        inputs=len(model.quantized_inputs),
    )
    return replace(
        report,
        causes=causes_of(phases, report.divergences),
        excerpts=excerpts_of(phases, code),
        not_exercised=(*not_shown, *comparison.left_out),
    )
