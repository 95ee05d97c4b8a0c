"""`verify`: (repair →) convert → build → prompt → ROUGE → loss → diff-layers, one verdict.

This module is the composition: the stages know nothing of each other, and nothing of this.

Requires: a model directory (its `config.json` alone suffices with random weights) and a registered port for it.
Ensures: a report; with a report directory also its files, and one file per stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.bundle.save import check_target
from trtllm_port.verification.calibration import with_calibration
from trtllm_port.verification.diff import compare_model, diff_report, save
from trtllm_port.verification.greedy import continue_prompts, describe, make_prompts, prompt_gate
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict, worst
from trtllm_port.verification.loss.repair import Repair
from trtllm_port.verification.loss.repair import describe as describe_repair
from trtllm_port.verification.loss.result import describe as describe_loss
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.quantization_loss import NOT_MEASURED, check_loss_settings, run_loss, run_repair
from trtllm_port.verification.report.assembly import command, convert_command, summary, verdict_of
from trtllm_port.verification.report.finish import finish
from trtllm_port.verification.report.port_faults import blame
from trtllm_port.verification.report.report import Report, Stage
from trtllm_port.verification.rouge import run_rouge
from trtllm_port.verification.sides import preparation
from trtllm_port.verification.sides.preparation import Model, PortOptions, hugging_face_loader, open_port, opened_model
from trtllm_port.verification.stimulus.precisions import phases_of
from trtllm_port.verification.stimulus.settings import VerifySettings
from trtllm_port.verification.stimulus.stimulus import enough_tokens, switch_lengths

DEFAULTS = VerifySettings()
# "repair" where a bound is given, "loss" where there is an original
STAGES = ("repair", "convert", "build", "prompt", "rouge", "loss", "diff-layers")
ROWS = 5  # prompts and rows of a batch at once


@dataclass
class Pipeline:
    """One verification while it runs; each stage adds its outcome.

    Attributes:
        model: the model and its port; its dtype is settled by the conversion.
        work: directory for checkpoint and engine.
        settings: everything else.
        progress: called with (phase, done, total).
        stages, gates, results: what came of it.
        rouge, loss, repair: what the report shows of the summaries, of what quantization cost, and of the modules that
            were left unquantized for it.
        not_exercised: stages that were left out.
    """

    model: Model
    work: Path
    settings: VerifySettings
    progress: Progress | None
    stages: list[Stage] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    rouge: dict[str, Any] | None = None
    loss: dict[str, Any] | None = None
    repair: dict[str, Any] | None = None
    not_exercised: list[NotExercised] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """Where the converted weights are."""
        return self.work / "checkpoint"

    @property
    def engine(self) -> Path:
        """Where the engine is."""
        return self.work / "engine"

    @property
    def order(self) -> tuple[str, ...]:
        """The stages of this run."""
        left_out = {"repair": self.settings.repair is None, "loss": self.settings.original is None}
        return tuple(name for name in STAGES if not left_out.get(name, False))

    def done(self, name: str, started: float, detail: str, gates: Sequence[Gate] = ()) -> None:
        """Note that a stage is over."""
        self.gates += gates
        verdict = worst(gate.verdict for gate in gates if gate.verdict is not Verdict.SKIPPED)
        self.stages.append(Stage(name=name, verdict=verdict, seconds=time.perf_counter() - started, detail=detail))

    def left_out(self, name: str, reason: str) -> None:
        """Note that a stage was not run."""
        self.stages.append(Stage(name=name, verdict=Verdict.SKIPPED, seconds=0.0, detail=reason))
        self.not_exercised.append(NotExercised(what=name, reason=reason))


def verify(
    model_dir: Path,
    *,
    report_dir: Path | None = None,
    settings: VerifySettings = DEFAULTS,
    progress: Progress | None = None,
    **port: Unpack[PortOptions],
) -> Report:
    """Take a port all the way and prove it.

    Args:
        model_dir, report_dir, progress, port: see `diff_layers`.
        settings: everything else.

    Raises:
        PortError: the model, the port or a library cannot be used. A difference is not an error but the verdict.
    """
    started = time.perf_counter()
    check_target(settings.save, [model_dir, settings.original], report_dir)
    is_random = port.get("random_weights", False)
    check_loss_settings(model_dir, settings, random_weights=is_random)
    if settings.quantize is not None and not is_random:
        settings = replace(settings, original=model_dir)
    settings = with_calibration(settings)
    found, repair_started = None, time.perf_counter()
    if settings.repair is not None:
        with opened_model(model_dir, settings, progress, **port) as (model, _):
            found = run_repair(model, settings, progress)
        settings = repaired(settings, found)
    with opened_model(model_dir, settings, progress, **port) as (model, work):
        pipeline = Pipeline(model, work, settings, progress)
        if found is not None:
            repair(pipeline, found, repair_started)
        try:
            convert(pipeline)
            build(pipeline)
            prompt(pipeline)
            rouge(pipeline)
            loss(pipeline)
            report = diff_layers(pipeline)
        except Exception as error:  # raised again unless the port is to blame
            report = refused(pipeline, error)
    return finish(report, started, report_dir)


def repaired(settings: VerifySettings, found: Repair) -> VerifySettings:
    """The settings with which what a repair found is left unquantized."""
    if settings.quantize is None:
        raise ValueError("nothing is quantized")
    excluded = (*settings.quantize.exclude_modules, *found.modules)
    return replace(settings, quantize=replace(settings.quantize, exclude_modules=excluded))


def repair(pipeline: Pipeline, found: Repair, started: float) -> None:
    """Stage 0, where a bound is given: which modules are left unquantized; all that follows is done with those."""
    content = {**found.to_dict(), "command": convert_command(pipeline.model)}
    pipeline.results["repair"] = pipeline.repair = content
    pipeline.done("repair", started, describe_repair(found))


def convert(pipeline: Pipeline) -> None:
    """Stage 1: the checkpoint."""
    started = time.perf_counter()
    result = preparation.convert(pipeline.model, pipeline.model.dtype, pipeline.checkpoint, pipeline.progress)
    pipeline.model = replace(pipeline.model, dtype=result.dtype)
    pipeline.results["convert"] = result.to_dict()
    pipeline.done("convert", started, f"{result.tensors:,} tensors, {result.size / 1e6:,.1f} MB in {result.dtype}")


def refused(pipeline: Pipeline, error: Exception) -> Report:
    """Report a port that cannot hold the weights or cannot be run; any other error is raised again."""
    found = blame(pipeline.model, error)
    failed, *rest = pipeline.order[len(pipeline.stages) :]
    pipeline.stages.append(Stage(name=failed, verdict=Verdict.FAIL, seconds=0.0, detail=found.summary))
    for name in rest:
        pipeline.left_out(name, f"the port failed in the stage before: {failed}")
    return replace(
        found,
        kind="verify",
        stages=tuple(pipeline.stages),
        repair=pipeline.repair,
        gates=(*pipeline.gates, *found.gates),
        not_exercised=(*found.not_exercised, *pipeline.not_exercised),
        stage_results=pipeline.results,
        commands=(command("verify", pipeline.model), command("diff-layers", pipeline.model)),
    )


def build(pipeline: Pipeline) -> None:
    """Stage 2: the engine, compiled for the chosen GPUs, none of which need be here."""
    from trtllm_port.building import build_engine

    started = time.perf_counter()
    settings, longest = pipeline.settings, pipeline.model.longest
    tokens = settings.tokens or enough_tokens(pipeline.model.config)
    length = min(longest, max(tokens, 2 * settings.max_new_tokens))
    result = build_engine(
        pipeline.checkpoint,
        pipeline.engine,
        workspace=pipeline.model.workspace,
        backend=settings.backend,
        compute_capabilities=settings.compute_capabilities,
        max_batch_size=ROWS,
        max_input_len=length,
        max_seq_len=length,
        progress=pipeline.progress,
    )
    pipeline.results["build"] = result.to_dict()
    detail = f"{result.num_layers:,} TensorRT layers"
    if result.engines:
        engine = result.engines[0]
        capabilities = ", ".join(result.build.compute_capabilities)
        detail += f", compiled by {engine.library} for {capabilities}, {engine.engine_bytes / 1e6:,.1f} MB"
    else:
        pipeline.not_exercised.append(NotExercised(what="compilation", reason="the backend is `reference`"))
    pipeline.done("build", started, detail)


def prompt(pipeline: Pipeline) -> None:
    """Stage 3: greedy tokens beside Hugging Face's."""
    started = time.perf_counter()
    model, settings = pipeline.model, pipeline.settings
    port = open_port(pipeline.engine, backend="auto", device=settings.device)
    prompts = make_prompts(model.given, model.vocab_size, settings.seed, model.padding, model.trust_remote_code)
    longest = max(map(len, prompts[0]))
    switches = [length for length in switch_lengths(model.config) if length > longest]
    room = min([port.session.max_seq_len, *switches]) - longest
    if room < 1:
        pipeline.left_out("prompt", f"the model takes {port.session.max_seq_len} tokens, fewer than the prompts have")
        return
    own = phases_of(model.dtype)[-1]
    new_tokens = min(settings.max_new_tokens, room)
    precisions = (own.dtype, own.reference_dtype)
    load = hugging_face_loader(model, settings.device)
    result = continue_prompts(port, load, precisions, prompts, new_tokens, pipeline.progress)
    pipeline.results["prompt"] = result.to_dict()
    if port.session.note:
        reason = f"the reference executor computed everything: {port.session.note}"
        pipeline.not_exercised.append(NotExercised(what="the compiled engine on a GPU", reason=reason))
    pipeline.done("prompt", started, f"{describe(result)}; {result.executor}", [prompt_gate(result)])


def rouge(pipeline: Pipeline) -> None:
    """Stage 4: summaries beside Hugging Face's."""
    started = time.perf_counter()
    if pipeline.model.random_weights:
        pipeline.left_out("rouge", "random weights write no summaries")
        return
    outcome = run_rouge(pipeline.engine, pipeline.model.source, pipeline.settings, pipeline.progress)
    if isinstance(outcome, str):
        pipeline.left_out("rouge", outcome)
        return
    pipeline.results["summarize"], pipeline.rouge = outcome.result, outcome.shown
    pipeline.done("rouge", started, outcome.detail, [outcome.gate])


def loss(pipeline: Pipeline) -> None:
    """Stage 5, where there is an original: what the quantized weights cost."""
    started = time.perf_counter()
    model, settings = pipeline.model, pipeline.settings
    if settings.original is None:
        if model.quantized is not None:
            pipeline.not_exercised.append(NOT_MEASURED)
        return
    outcome = run_loss(model, settings.original, settings, pipeline.progress)
    pipeline.results["loss"] = pipeline.loss = outcome.loss.to_dict()
    pipeline.done("loss", started, describe_loss(outcome.loss), outcome.gates)


def diff_layers(pipeline: Pipeline) -> Report:
    """The last stage: module by module, on the network that was compiled."""
    started = time.perf_counter()
    settings, model = pipeline.settings, pipeline.model
    engine = replace(settings, engine_dir=pipeline.engine)
    comparison = compare_model(model, pipeline.work, engine, pipeline.progress)
    found = diff_report(comparison)
    pipeline.done("diff-layers", started, found.summary, found.gates)
    gates = tuple(pipeline.gates)
    verdict = verdict_of(gates)
    options = {"tokens": settings.tokens, "prompt-file": settings.prompt_file}
    original = settings.original if model.quantize is None else None
    limit = None if settings.max_kl is None else f"{settings.max_kl:g}"
    measured = options | {"original": original, "max-kl": limit}
    converting = [] if pipeline.repair is None else [pipeline.repair["command"]]
    report = replace(
        found,
        kind="verify",
        verdict=verdict,
        summary=summary(verdict, found.divergences, gates, model.dtype),
        stages=tuple(pipeline.stages),
        rouge=pipeline.rouge,
        loss=pipeline.loss,
        repair=pipeline.repair,
        gates=gates,
        not_exercised=(*found.not_exercised, *pipeline.not_exercised),
        commands=(command("verify", model, measured), *converting, command("diff-layers", model, options)),
        stage_results=pipeline.results,
    )
    save(comparison, report, pipeline.work, engine)
    return report
