"""One row of the table: a model type from `config.json` to a verified port and an engine.

`new` → `verify --random-weights` in float32 and in bfloat16 → a float16 engine compiled ahead of time. Ports are made
from the class's default config and verified at a tiny size that no trace has seen. The first thing that falls short
ends the row; an error that is no `PortError` is a defect of this package.
"""

from __future__ import annotations

import ast
import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coverage_types import family_of, write_config
from coverage_warnings import warnings_of

from trtllm_port.errors import PortError

if TYPE_CHECKING:
    from trtllm_port.porting.create import PortResult
    from trtllm_port.verification import Report

DTYPES = ("float32", "bfloat16")
PREFILL, STEPS = 512, 64  # of the comparison with Hugging Face
ANSWER = 16  # tokens that are generated for each prompt
CAPABILITY = "8.9"
PASSES, NO_ENGINE, DIFFERS, INCOMPLETE, REFUSED, DEFECT = STATUSES = (
    *("passes", "no engine", "differs"),
    *("incomplete", "refused", "defect"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one model type.

    Attributes:
        model_type: as in `config.json`.
        family: see `model_types.toml`.
        status: one of `STATUSES`.
        stage: where it fell short: "config", "new", "verify float32", "verify bfloat16" or "engine"; "" if nowhere.
        reason: why, in the error's own words; "" if it passes.
        lines: of `model.py`.
        longest_class: lines of its longest class.
        ratio: the largest error of any tap in bfloat16, in units of Hugging Face's own error there.
        seconds: of processor time, which other processes do not stretch.
        warnings: per data type that was verified, see `coverage_warnings`.
    """

    model_type: str
    family: str
    status: str
    stage: str = ""
    reason: str = ""
    lines: int | None = None
    longest_class: int | None = None
    ratio: float | None = None
    seconds: float = 0.0
    warnings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class FallsShortError(Exception):
    """A stage says no; the arguments are status and reason."""


class Measurement:
    """The stages of one type, in a directory of their own."""

    def __init__(self, model_type: str, directory: Path) -> None:
        self.directory = directory
        self.row = Row(model_type=model_type, family=family_of(model_type), status=PASSES)
        self.stage = "config"

    def run(self) -> Row:
        """Run the stages until one falls short."""
        began = time.process_time()
        try:
            self._stages()
        except FallsShortError as error:
            self._falls_short(*error.args)
        except PortError as error:
            self._falls_short(NO_ENGINE if self.stage == "engine" else REFUSED, error.message)
        except Exception as error:  # any other is a defect
            self._falls_short(DEFECT, describe(error))
            traceback.print_exc()
        return replace(self.row, seconds=round(time.process_time() - began, 1))

    def _falls_short(self, status: str, reason: str) -> None:
        self.row = replace(self.row, status=status, stage=self.stage, reason=one_line(reason))

    def _stages(self) -> None:
        from trtllm_port.porting.create import create_port

        given, tiny = self.directory / "given", self.directory / "tiny"
        write_config(self.row.model_type, given)
        self.stage = "new"
        result = create_port(given, workspace=self.directory)
        self._measure(result)
        write_tiny(given, tiny)
        for dtype in DTYPES:
            self.stage = f"verify {dtype}"
            self._verify(tiny, dtype)
        self.stage = "engine"
        self._compile(tiny)

    def _measure(self, result: PortResult) -> None:
        assert result.source is not None  # no blank port was asked for
        text = result.source.files["model.py"]
        self.row = replace(self.row, lines=len(text.splitlines()), longest_class=longest_class(text))
        outcome = unlike_a_port(result)
        if outcome is not None:
            raise FallsShortError(*outcome)

    def _verify(self, tiny: Path, dtype: str) -> None:
        report = report_on(tiny, workspace=self.directory, dtype=dtype)
        self.row = replace(self.row, warnings=self.row.warnings | {dtype: warnings_of(report)})
        if dtype == DTYPES[-1]:
            self.row = replace(self.row, ratio=largest_ratio(report))
        if report.verdict != "pass":
            failed = [f"{gate.name}: {gate.reason}" for gate in report.gates if gate.verdict == report.verdict]
            raise FallsShortError(DIFFERS, "; ".join([report.summary, *failed[:2]]))

    def _compile(self, tiny: Path) -> None:
        from trtllm_port.building import build_engine
        from trtllm_port.conversion import convert_checkpoint
        from trtllm_port.huggingface.random_weights import save_random_checkpoint

        model, checkpoint = self.directory / "model", self.directory / "checkpoint"
        save_random_checkpoint(tiny, model)
        convert_checkpoint(model, checkpoint, workspace=self.directory, dtype="float16")
        build_engine(
            checkpoint,
            self.directory / "engine",
            workspace=self.directory,
            backend="tensorrt_rtx",
            compute_capabilities=(CAPABILITY,),
            max_batch_size=2,
            max_input_len=PREFILL,
            max_seq_len=PREFILL + STEPS,
        )


def report_on(tiny: Path, *, workspace: Path, dtype: str) -> Report:
    """Verify the port of a workspace with random weights of a tiny size."""
    from trtllm_port.verification import VerifySettings, verify

    # A type's first comparison is the one in float32, with the same weights: the others need not make it again.
    settings = VerifySettings(
        tokens=PREFILL + STEPS, max_new_tokens=ANSWER, backend="reference", logic=dtype == DTYPES[0]
    )
    return verify(tiny, workspace=workspace, dtype=dtype, random_weights=True, settings=settings)


def unlike_a_port(result: PortResult) -> tuple[str, str] | None:
    """Why what `new` wrote is no complete and right port, as status and reason; None if it is one."""
    assert result.source is not None  # no blank port was asked for
    assert result.check is not None
    if result.source.skeletons:
        reasons = [f"{skeleton.name}: {skeleton.reason}" for skeleton in result.source.skeletons]
        return INCOMPLETE, "; ".join(reasons)
    check = result.check
    error = f"{check.first_divergence} differs; worst relative error {check.worst_error} at {check.worst}"
    return None if check.passed else (DIFFERS, check.problem or error)


def write_tiny(given: Path, directory: Path) -> None:
    """Write a directory's config at a size that no trace has seen."""
    from trtllm_port.codegen.configs.sizes import unseen_config
    from trtllm_port.huggingface.text_part import load_hf_config

    unseen_config(load_hf_config(given)).save_pretrained(directory)


def largest_ratio(report: Report) -> float | None:
    """The largest finite noise ratio of any tap."""
    ratios = [tap.metrics["ratio"] for tap in report.taps if tap.metrics is not None]
    found = [ratio for ratio in ratios if ratio is not None and ratio < float("inf")]
    return round(max(found), 2) if found else None


def longest_class(text: str) -> int:
    """Lines of the longest class in a source."""
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    return max((node.end_lineno or node.lineno) - node.lineno + 1 for node in classes)


def describe(error: BaseException) -> str:
    """An error with the place that raised it, in our sources if it went through them."""
    frames = traceback.extract_tb(error.__traceback__)
    place = frames[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def one_line(text: str, longest: int = 300) -> str:
    """A message as one line of a table."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


@contextmanager
def quietly() -> Iterator[None]:
    """Without messages of transformers, and in one thread of torch: the processes share the cores."""
    import torch

    from trtllm_port.huggingface.quiet import quiet_transformers

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with quiet_transformers():
            yield
    finally:
        torch.set_num_threads(threads)


def measure(model_type: str, directory: Path) -> Row:
    """Measure one type in an empty directory."""
    with quietly():
        return Measurement(model_type, directory).run()


def measure_into(model_type: str, directory: str, result: str) -> None:
    """What a process of the pool does: `measure`, and write the row to a file."""
    row = measure(model_type, Path(directory))
    Path(result).write_text(json.dumps(row.to_dict()), encoding="utf-8")
