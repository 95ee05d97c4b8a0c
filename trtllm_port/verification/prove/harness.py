"""`verify --prove`: does the check bite? Bugs are put into the port one by one, and each must be found.

Hugging Face's two runs do not depend on the port, so they are made once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from trtllm_port.errors import CheckpointError, PortError
from trtllm_port.foundation.progress import Progress
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification.decode.generation_gates import RUNS
from trtllm_port.verification.judge.metrics import metrics, summarise
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult, judge_port
from trtllm_port.verification.prove.bugs import Bug, Injection, SoundPort, modules_in_order
from trtllm_port.verification.prove.catalogue import CATALOGUE
from trtllm_port.verification.prove.mutants import MutantFactory
from trtllm_port.verification.prove.outcome import Outcome, Proof
from trtllm_port.verification.report.assembly import causes_of, divergences_of, verdict_of
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceSides, run_hugging_face
from trtllm_port.verification.sides.preparation import (
    Model,
    PortOptions,
    hugging_face_loader,
    opened_model,
    settle_dtype,
    stimulus_of,
)
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.precisions import phases_of
from trtllm_port.verification.stimulus.settings import DiffSettings
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS

DEFAULTS = DiffSettings()
TOKENS = 272  # unless told otherwise: past 256, where positions in bfloat16 begin to round


@dataclass(frozen=True, kw_only=True)
class ProofSetup:
    """Everything that the bugs have in common.

    Attributes:
        factory: makes ports.
        sides: Hugging Face's runs, per phase.
        logits: of the sound port, per phase: prefill, then what came through the cache.
        port: the sound port.
        executor: what runs it.
    """

    factory: MutantFactory
    sides: tuple[HuggingFaceSides, ...]
    logits: tuple[tuple[Tensor, ...], ...] = field(repr=False)
    port: SoundPort
    executor: str


def prove(
    model_dir: Path,
    *,
    report_dir: Path | None = None,
    settings: DiffSettings = DEFAULTS,
    catalogue: Sequence[Bug] = CATALOGUE,
    progress: Progress | None = None,
    **port: Unpack[PortOptions],
) -> Proof:
    """Put bugs into a port and see whether the comparison finds them.

    Args:
        model_dir: a Hugging Face model directory.
        report_dir: where `prove.json` is written, and what a run that was interrupted had found.
        settings: prompt and seed.
        catalogue: the bugs.
        progress: called with (phase, done, total).
        port: which port, and with which weights.

    Raises:
        PortError: the model or the port cannot be used, or the port fails the comparison without any bug.
    """
    started = time.perf_counter()
    with opened_model(model_dir, settings, progress, **port) as (model, work):
        model = settle_dtype(model, work, None, progress)
        setup = set_up(model, work, settings)
        log = OutcomeLog(report_dir, model, settings)
        outcomes = []
        for number, bug in enumerate(catalogue):
            if progress is not None:
                progress("bugs", number, len(catalogue))
            outcomes.append(log.recall(bug) or log.note(try_bug(setup, bug)))
    proof = Proof(
        architecture=model.architecture,
        port=model.port.name,
        dtype=model.dtype,
        tokens=setup.port.tokens,
        executor=setup.executor,
        outcomes=tuple(outcomes),
        seconds=time.perf_counter() - started,
        quantization=_quantization(model),
    )
    log.close(proof)
    return proof


def set_up(model: Model, work: Path, settings: DiffSettings) -> ProofSetup:
    """Run Hugging Face and the sound port.

    Raises:
        PortError: the sound port does not pass, or takes classes from another one.
    """
    if len(model.port.packages) > 1:
        raise PortError(
            f"port `{model.port.name}` takes classes from port `{model.port.packages[1].name}`: "
            "bugs are put into ports that stand on their own",
            hint="prove that one, or write this one into another workspace without `--like`",
        )
    stimulus = stimulus_of(model, replace(settings, tokens=settings.tokens or TOKENS), model.longest)
    load = hugging_face_loader(model, settings.device)
    sides = tuple(run_hugging_face(phase, load, stimulus) for phase in phases_of(model.dtype))
    factory = MutantFactory(model=model, work=work, length=len(stimulus.ids), rows=max(1, len(stimulus.rows)))
    results, logits = [], []
    for each in sides:
        with factory.port(each.phase.dtype) as runner:
            results.append(judge_port(each, runner))
            logits.append(all_logits(runner, stimulus))
    _require_pass(model, results)
    port = SoundPort(
        source=(model.port.package_dir / "model.py").read_text(encoding="utf-8"),
        weights=_weights(model),
        stored=factory.stored("float32"),
        config=model.config,
        classes={path: facts.class_name for path, facts in sides[0].facts.modules.items()},
        order=modules_in_order(sides[0].recording.order),
        tokens=len(stimulus.ids),
    )
    return ProofSetup(factory=factory, sides=sides, logits=tuple(logits), port=port, executor=results[-1].executor)


def try_bug(setup: ProofSetup, bug: Bug) -> Outcome:
    """Put one bug into the port and see what the comparison says."""
    started = time.perf_counter()
    found = Outcome(bug=bug.id, kind=bug.kind, description=bug.description, status="no place", causes=bug.causes)
    injection = bug.inject(setup.port)
    if injection is None:
        return replace(found, reason="the port has nothing that this bug fits")
    found = replace(found, change=injection.change, expected=injection.modules)
    try:
        found = _compare(setup, injection, found)
    except CheckpointError as error:
        found = replace(found, status="caught", gate="weights.accounted", reason=error.message.splitlines()[0])
    except LayerExecutionError as error:
        found = replace(found, status="caught", gate=RUNS, reason=error.message.splitlines()[0])
    except PortError as error:
        found = replace(found, status="no place", reason=f"no such port can be built: {error.message.splitlines()[0]}")
    return replace(found, seconds=time.perf_counter() - started)


def _compare(setup: ProofSetup, injection: Injection, found: Outcome) -> Outcome:
    results: list[PhaseResult] = []
    effect = 0.0
    for sides, sound in zip(setup.sides, setup.logits, strict=True):
        with setup.factory.port(sides.phase.dtype, injection) as port:
            results.append(judge_port(sides, port))
            if verdict_of(results[-1].gates) is Verdict.FAIL:
                break
            effect = max(effect, _effect(sides, all_logits(port, sides.stimulus), sound))
    gates = [gate for result in results for gate in result.gates]
    if verdict_of(gates) is not Verdict.FAIL:
        if effect > RATIO.warns:
            return replace(found, status="missed", reason=f"it changes the logits by {effect:.3g} times the noise")
        reason = f"it changes the logits by {effect:.2g} times Hugging Face's own error"
        return replace(found, status="not exercised", reason=reason)
    divergence = next((result.divergence for result in results if result.divergence is not None), None)
    causes = causes_of(results, divergences_of(results, None))
    return replace(
        found,
        status="caught",
        gate=next(gate.name for gate in gates if gate.verdict is Verdict.FAIL),
        module=divergence,
        cause=causes[0].id if causes else None,
        cause_status=causes[0].status if causes else None,
    )


def all_logits(port: SessionRunner, stimulus: Stimulus) -> tuple[Tensor, ...]:
    """Return the port's logits of the whole prompt at once, and through the cache step by step."""
    prefill = len(stimulus.ids) - stimulus.decode_steps
    return (port.run(torch.tensor([stimulus.ids]))[0], *port.run_incrementally([stimulus.ids], [prefill]))


def _effect(sides: HuggingFaceSides, logits: tuple[Tensor, ...], sound: tuple[Tensor, ...]) -> float:
    """Return how much a bug changes the port's logits, in units of Hugging Face's own error."""
    floor = sides.yardstick.floors[LOGITS]
    noise = max(summarise(floor).rel_l2, ROUNDING[sides.phase.dtype])
    return max(metrics(x, y).rel_l2 for x, y in zip(logits, sound, strict=True)) / noise


def _weights(model: Model) -> Mapping[str, Tensor]:
    from trtllm_port.layers.weights import HuggingFaceWeights

    port: Any = model.port.cls(model.port.cls.config_class.from_hugging_face(model.source, "float32"))
    port.load_hugging_face(HuggingFaceWeights(model.source))
    return dict(port.weights)


def _quantization(model: Model) -> str:
    """How the port's weights are quantized, in a few words."""
    if model.quantize is not None:
        return model.quantize.algorithm
    if model.quantized is None:
        return ""
    kinds = sorted({group.kind for group in model.quantized.groups})
    return f"{model.quantized.method} {' '.join(kinds)}"


def _require_pass(model: Model, results: Sequence[PhaseResult]) -> None:
    gates = [gate for result in results for gate in result.gates]
    failed = [gate.name for gate in gates if gate.verdict in (Verdict.FAIL, Verdict.CANNOT_TELL)]
    if failed:
        raise PortError(
            f"the port `{model.port.name}` does not pass by itself, at {', '.join(failed[:4])}",
            hint="`trtllm-port diff-layers` says why; bugs are put into sound ports only",
        )


class OutcomeLog:
    """What was found so far, so that a run that was interrupted goes on where it stopped.

    Args:
        directory: where it is kept; None keeps nothing.
        model: the model and its port; another port begins anew.
        settings: other settings begin anew, too.
    """

    def __init__(self, directory: Path | None, model: Model, settings: DiffSettings) -> None:
        self.directory = directory
        self.key = f"{model.given} {model.port.digest} {model.dtype} {settings} {TOKENS}"
        self.known: dict[str, Outcome] = {}
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text().splitlines() if self._path.is_file() else []
            if lines and json.loads(lines[0]) == self.key:
                self.known = {o.bug: o for o in map(Outcome.from_dict, map(json.loads, lines[1:]))}
            else:
                self._path.write_text(json.dumps(self.key) + "\n")

    @property
    def _path(self) -> Path:
        return (self.directory or Path()) / "prove.partial.jsonl"

    def recall(self, bug: Bug) -> Outcome | None:
        """Return what was found before."""
        return self.known.get(bug.id)

    def note(self, outcome: Outcome) -> Outcome:
        """Keep an outcome."""
        if self.directory is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(outcome.to_dict()) + "\n")
        return outcome

    def close(self, proof: Proof) -> None:
        """Write the result, and forget what was kept."""
        if self.directory is not None:
            (self.directory / "prove.json").write_text(json.dumps(proof.to_dict(), indent=2) + "\n")
            self._path.unlink(missing_ok=True)
