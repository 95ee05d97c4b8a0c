"""The report: frozen data, JSON first. Text, HTML and JUnit are renderings of its JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.locations import Excerpt
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.metrics import TapMetrics
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.judge.verdict import Verdict, counted, exit_code
from trtllm_port.verification.phases.not_exercised import NotExercised

SCHEMA_VERSION = 1
NOT_IN_JSON = ("stage_results", "report_dir", "look")
REPORT_JSON, REPORT_HTML, JUNIT_XML = "report.json", "report.html", "junit.xml"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was verified.

    Attributes:
        model: the model directory as given.
        architecture: HF's class name.
        port: the port's name.
        port_digest: of its source.
        dtype: of the port.
        random_weights: whether seeded random weights stood in for the checkpoint's.
        seed: of those and of random token ids.
    """

    model: str
    architecture: str
    port: str
    port_digest: str
    dtype: str
    random_weights: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A module that errs by itself, on Hugging Face's input.

    Attributes:
        module: HF module path; the model's class name if the model's own code is wrong.
        class_name: HF's class.
        phase: "logic" or "precision".
        tap: the tap that fails there.
        rel_l2, floor: its error, and Hugging Face's own in that dtype, both on Hugging Face's input.
        ratio: of the two.
        end_to_end: the ratio in the run from end to end, with what earlier modules did wrong.
        inherited: error of the module's input, in units of its floor; None if it has no float input.
        order: how many taps before it pass.
        note: why, if not by its numbers.
        causes: hypotheses, best first; empty if an equal module of an earlier layer has them.
    """

    module: str
    class_name: str
    phase: str
    tap: str
    rel_l2: float | None
    floor: float | None
    ratio: float | None
    end_to_end: float | None
    inherited: float | None
    order: int
    note: str
    causes: tuple[Cause, ...]


@dataclass(frozen=True, kw_only=True)
class TapReport:
    """One tap: its verdict over all phases, and its metrics in each.

    Attributes:
        name: HF module path, with `:input` for its input.
        class_name: HF's class.
        verdict: the worst of the phases, end to end and injected.
        note: what numbers do not say.
        metrics: in the port's dtype; None if nothing could be subtracted.
        logic: in float32, for a port in another dtype; else None.
        own, logic_own: the same from the injected runs: the error that is made between Hugging Face's values before
            this tap and the tap itself.
        positions: noise ratio over groups of neighbouring positions, port's dtype; of outputs only.
    """

    name: str
    class_name: str
    verdict: Verdict
    note: str
    metrics: dict[str, float | None] | None
    logic: dict[str, float | None] | None
    own: dict[str, float | None] | None
    logic_own: dict[str, float | None] | None
    positions: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of `verify`."""

    name: str
    verdict: Verdict
    seconds: float
    detail: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of `diff-layers` or `verify`.

    Attributes:
        kind: "diff-layers" or "verify".
        verdict: pass, fail or cannot_tell.
        summary: one sentence.
        subject: what was verified.
        executor: what computed the port's numbers.
        reference: per phase, what they were compared with.
        stimulus: what was fed.
        first_divergence: HF module name, or None.
        divergence: more about it.
        divergences: all modules that err by themselves, the first one first.
        causes: hypotheses, best first.
        excerpts: the source of the first divergence: the port's, then Hugging Face's.
        next_steps: what to do now, in words.
        stages: of `verify`, in order.
        rouge: the summaries of both sides, compared (`verify` only).
        loss: what quantization cost, in the JSON form of `Loss` (`verify --original` only).
        repair: the modules that were left unquantized to keep to a bound, in the JSON form of `Repair`, and the command
            that converts so (`verify --repair` only).
        gates: every question and its answer.
        taps: in HF's execution order.
        ignored: taps that need no counterpart, with the reason.
        position_profile: relative error of the logits over the positions: port and floor per phase.
        not_exercised: what this run could not show.
        versions: of everything that took part.
        commands: how to repeat it.
        seconds: altogether.
        stage_results: what the stages of `verify` returned; each becomes a file of its own.
        report_dir: where the report was written.
    """

    kind: str
    verdict: Verdict
    summary: str
    subject: Subject
    executor: str
    reference: Mapping[str, str]
    stimulus: Mapping[str, Any]
    first_divergence: str | None
    divergence: Divergence | None
    divergences: tuple[Divergence, ...]
    causes: tuple[Cause, ...]
    excerpts: tuple[Excerpt, ...] = ()
    next_steps: tuple[str, ...] = ()
    stages: tuple[Stage, ...]
    rouge: Mapping[str, Any] | None = None
    loss: Mapping[str, Any] | None = None
    repair: Mapping[str, Any] | None = None
    gates: tuple[Gate, ...]
    taps: tuple[TapReport, ...]
    ignored: Mapping[str, str]
    position_profile: Mapping[str, Mapping[str, tuple[float, ...]]]
    not_exercised: tuple[NotExercised, ...]
    versions: Mapping[str, str]
    commands: tuple[str, ...]
    seconds: float
    stage_results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    report_dir: Path | None = None

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many gates and taps have each verdict."""
        return {
            "gates": counted(gate.verdict for gate in self.gates),
            "taps": counted(tap.verdict for tap in self.taps),
        }

    @property
    def exit_code(self) -> int:
        """0 for a proven port, 1 for one that differs or could not be proven."""
        return exit_code(self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form (`docs/report-schema.json`); numbers that are not finite become null."""
        fields = asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if k not in NOT_IN_JSON})
        return {"schema_version": SCHEMA_VERSION, **plain(fields), "counts": self.counts}


def metric_values(tap: TapComparison) -> dict[str, float | None] | None:
    """Return a tap's numbers by name, or None if it has none."""
    if tap.metrics is None or tap.floor is None:
        return None
    names = tuple(TapMetrics.__dataclass_fields__)
    values: dict[str, float | None] = {name: getattr(tap.metrics, name) for name in names}
    values |= {"floor": tap.floor.rel_l2, "ratio": tap.ratio}
    return values | {"linf_ratio": tap.linf_ratio, "token_ratio": tap.token_ratio}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; numbers that are not finite become null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path | Verdict) else value
