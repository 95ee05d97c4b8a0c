"""How a row is measured; of the table: a model type from `config.json` to a verified port and an engine.

`new` → `verify --random-weights` in float32 and in bfloat16 → a float16 engine compiled ahead of time. Ports are made
from the class's default config and verified at a tiny size that no trace has seen. The first thing that falls short
ends the row; an error that is no `PortError` is a defect of this package.
"""

from __future__ import annotations

import ast
import json
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coverage_rows import DEFECT, DIFFERS, INCOMPLETE, NO_ENGINE, PASSES, REFUSED, Row, TableRow
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

RowT = TypeVar("RowT", bound=Row)


class FallsShortError(Exception):
    """A stage says no; the arguments are status and reason."""


class Measurement(ABC, Generic[RowT]):
    """What is asked of one type, in a directory of its own.

    Args:
        row: what is known before anything was measured.
        directory: empty.
    """

    def __init__(self, row: RowT, directory: Path) -> None:
        self.row, self.directory = row, directory

    def run(self) -> RowT:
        """Measure; whatever goes wrong becomes a part of the row."""
        began = time.process_time()
        self.measure()
        return replace(self.row, seconds=round(time.process_time() - began, 1))

    @abstractmethod
    def measure(self) -> None:
        """Note what becomes of the type."""

    def note(self, **values: Any) -> None:
        """Fields of the row."""
        self.row = replace(self.row, **values)

    def verify(self, tiny: Path, dtype: str) -> Report:
        """Verify the port of the directory with random weights of a tiny size, and note what that warns of."""
        report = report_on(tiny, workspace=self.directory, dtype=dtype)
        self.note(warnings=self.row.warnings | {dtype: warnings_of(report)})
        return report


class StagedMeasurement(Measurement[TableRow]):
    """Stages, of which the first that falls short ends the row.

    Args:
        name: of the row.
        model_type: tells the family.

    Attributes:
        stage: the one that runs.
    """

    def __init__(self, name: str, model_type: str, directory: Path, stage: str) -> None:
        super().__init__(TableRow(model_type=name, family=family_of(model_type), status=PASSES), directory)
        self.stage = stage

    def measure(self) -> None:
        """Run the stages until one falls short."""
        try:
            self.stages()
        except FallsShortError as error:
            self.falls_short(*error.args)
        except PortError as error:
            self.falls_short(self.refused(error), error.message)
        except Exception as error:  # any other is a defect
            self.falls_short(DEFECT, describe(error))
            traceback.print_exc()

    @abstractmethod
    def stages(self) -> None:
        """Run them; FallsShortError or PortError where one falls short."""

    @abstractmethod
    def refused(self, error: PortError) -> str:
        """The status where the package refuses."""

    def falls_short(self, status: str, reason: str) -> None:
        """Note where, and why."""
        self.note(status=status, stage=self.stage, reason=one_line(reason))

    def read(self, result: PortResult) -> None:
        """Note how long what `new` wrote is; FallsShortError where it is no complete and right port."""
        assert result.source is not None  # no blank port was asked for
        text = result.source.files["model.py"]
        self.note(lines=len(text.splitlines()), longest_class=longest_class(text))
        outcome = unlike_a_port(result)
        if outcome is not None:
            raise FallsShortError(*outcome)


class TableMeasurement(StagedMeasurement):
    """The stages from a config to an engine."""

    def __init__(self, model_type: str, directory: Path) -> None:
        super().__init__(model_type, model_type, directory, "config")

    def refused(self, error: PortError) -> str:
        return NO_ENGINE if self.stage == "engine" else REFUSED

    def stages(self) -> None:
        from trtllm_port.porting.create import create_port

        given, tiny = self.directory / "given", self.directory / "tiny"
        write_config(self.row.model_type, given)
        self.stage = "new"
        result = create_port(given, workspace=self.directory)
        self.read(result)
        write_tiny(given, tiny)
        for dtype in DTYPES:
            self.stage = f"verify {dtype}"
            self._must_pass(tiny, dtype)
        self.stage = "engine"
        self._compile(tiny)

    def _must_pass(self, tiny: Path, dtype: str) -> None:
        report = self.verify(tiny, dtype)
        if dtype == DTYPES[-1]:
            self.note(ratio=largest_ratio(report))
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


def measure_into(measurement: Callable[[str, Path], Measurement[Any]], name: str, directory: str, result: str) -> None:
    """What a process of the pool does: measure one type in an empty directory, and write the row to a file."""
    with quietly():
        row = measurement(name, Path(directory)).run()
    Path(result).write_text(json.dumps(row.to_dict()), encoding="utf-8")
