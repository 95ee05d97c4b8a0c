"""The comparison once more, from a bundle: Hugging Face's side is read, the network runs.

Requires: a bundle that holds its networks, or an engine directory to run in their place.
Ensures: a report; with a report directory also its files.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtllm_port.errors import BundleError
from trtllm_port.foundation.atomic_files import real_path, require_writable
from trtllm_port.foundation.foreign import reading, typed
from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.quoting import shell_command
from trtllm_port.layers.weights import SafetensorsFile
from trtllm_port.runtime.engines.directory import CONFIG, EngineDirectory
from trtllm_port.verification.bundle.files import AGAIN, read_manifest, require_listed
from trtllm_port.verification.bundle.judge import NO_INJECTION, judge_recorded
from trtllm_port.verification.bundle.record import RecordedPhase
from trtllm_port.verification.bundle.store import from_parts
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.report.assembly import report_of
from trtllm_port.verification.report.finish import finish
from trtllm_port.verification.report.report import Report, Subject
from trtllm_port.verification.sides.preparation import open_port
from trtllm_port.verification.sides.provenance import require_engine_like
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.stimulus.precisions import Phase

FREE_CHOICE = "a replay compares values and lets the port choose: near a tie it may choose otherwise, and values follow"


def replay(
    bundle: Path,
    *,
    engine_dir: Path | None = None,
    device: str = "auto",
    report_dir: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare a network with what a bundle recorded of Hugging Face.

    Args:
        bundle: the directory that `--save` wrote.
        engine_dir: an engine directory that takes the place of the bundle's network of that dtype: a port that was
            changed since, or an engine for the GPU of this machine.
        device: torch device of the reference executor.
        report_dir: where the report is written; None writes nothing.
        progress: called with (phase, done, total).

    Raises:
        BundleError: the bundle is damaged, foreign, of another version, or has no weights and no engine took its place.
        EngineError: the engine directory cannot be used.
    """
    started = time.perf_counter()
    if report_dir is not None:
        _refuse_report_dir(report_dir, bundle)
    content = read_manifest(bundle)
    with reading(bundle, BundleError, hint=AGAIN, failed="is not what this release writes"):
        stimulus = typed(Stimulus, content["stimulus"])
        subject = typed(Subject, content["subject"])
        recorded = [_load(bundle, content, part) for part in content["phases"]]
        left_out = tuple(typed(NotExercised, item) for item in content["not_exercised"])
        networks = tuple(map(str, content["networks"])) if content["weights"] else ()
    results = []
    for number, phase in enumerate(recorded):
        if progress is not None:
            progress("replay", number, len(recorded))
        port = _port(bundle, content, networks, phase.phase.dtype, engine_dir, device)
        if port is not None:
            results.append(judge_recorded(phase, port, stimulus))
    if not results:
        raise BundleError(
            f"`{bundle}` holds no weights, and no engine in {subject.dtype} was given",
            hint="give `--engine-dir` with an engine of the same checkpoint",
        )
    report = _report(bundle, subject, stimulus, results, engine_dir)
    missing = [phase.phase for phase in recorded if phase.phase.name not in [each.phase.name for each in results]]
    report = replace(report, not_exercised=(*left_out, *_missing(missing), *report.not_exercised))
    if decisions := sorted({tap for phase in recorded for tap in phase.decisions}):
        item = NotExercised(what=f"decisions, as `{decisions[0]}`", reason=FREE_CHOICE)
        report = replace(report, not_exercised=(*report.not_exercised, item))
    return finish(report, started, report_dir)


def _refuse_report_dir(report_dir: Path, bundle: Path) -> None:
    require_writable(report_dir)
    if real_path(report_dir).is_relative_to(real_path(bundle)):
        raise BundleError(
            f"the report directory `{report_dir}` lies in the bundle `{bundle}`, which it would alter",
            hint="choose another --report-dir",
        )


def _load(bundle: Path, content: Mapping[str, Any], part: Mapping[str, Any]) -> RecordedPhase:
    name = f"{part['phase']['name']}.safetensors"
    if name not in ("logic.safetensors", "precision.safetensors"):
        raise ValueError(f"a phase of the name {name}")
    return from_parts(part, SafetensorsFile(require_listed(bundle, content, name)).tensors())


def _port(
    bundle: Path,
    content: Mapping[str, Any],
    networks: Collection[str],
    dtype: str,
    engine_dir: Path | None,
    device: str,
) -> SessionRunner | None:
    """Return what computes a phase, None if its network is not at hand."""
    config = f"network-{dtype}/{CONFIG}"  # it has the digests of the network's files
    if engine_dir is not None:
        own = EngineDirectory.read(engine_dir)
        if own.pretrained_config.get("dtype") == dtype:
            require_engine_like(engine_dir, require_listed(bundle, content, config), bundle)
            return open_port(engine_dir, backend="auto", device=device)
        return None
    if dtype not in networks:
        return None
    return open_port(require_listed(bundle, content, config).parent, backend="reference", device=device)


def _report(
    bundle: Path,
    subject: Subject,
    stimulus: Stimulus,
    phases: list[PhaseResult],
    engine_dir: Path | None,
) -> Report:
    gates = tuple(gate for phase in phases for gate in phase.gates)
    report = report_of(phases, gates, subject, stimulus, None)
    words = ["trtllm-port", "diff-layers", bundle, *(("--engine-dir", engine_dir) if engine_dir else ())]
    return replace(
        report,
        summary=f"{report.summary} (replayed)",
        reference={phase.phase.name: f"{phase.facts.name}, recorded; floor: {phase.yardstick}" for phase in phases},
        not_exercised=(
            NotExercised(what="causes, and each module on Hugging Face's own input", reason=NO_INJECTION),
            NotExercised(what="rows of tables that the prompt does not look up", reason=NO_INJECTION),
        ),
        commands=(shell_command(words),),
    )


def _missing(phases: Iterable[Phase]) -> list[NotExercised]:
    return [NotExercised(what=f"the {each.name} phase", reason=f"no network in {each.dtype}") for each in phases]
