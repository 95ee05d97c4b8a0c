"""Stage `demo`: the whole way on the model that ships with the package, `new` and then `verify`.

This composes `porting` and `verification`. Requires: a directory that holds no port of a Llama.
Ensures: the workspace holds the port and a report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.quoting import shell_command
from trtllm_port.shipped_model import MODEL_DIR

if TYPE_CHECKING:
    from trtllm_port.porting.create import PortResult
    from trtllm_port.verification import Report

__all__ = ["DemoResult", "tour"]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the tour produced.

    Attributes:
        workspace: where the port is.
        new: of the generator and its check.
        report: of the verification; None if the port did not pass its check.
        seconds: altogether.
    """

    workspace: Path
    new: PortResult
    report: Report | None
    seconds: float

    @property
    def verdict(self) -> str:
        """Of the report; without one, of the check: whether the port differs, or cannot be told from a wrong one."""
        if self.report is not None:
            return self.report.verdict.value
        differs = self.new.check is not None and self.new.check.first_divergence is not None
        return "fail" if differs else "cannot_tell"

    @property
    def exit_code(self) -> int:
        """0 for a proven port, 1 for one that differs."""
        return 1 if self.report is None else self.report.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "workspace": str(self.workspace),
            "model": str(MODEL_DIR),
            "verdict": self.verdict,
            "seconds": self.seconds,
            "new": self.new.to_dict(),
            "report": None if self.report is None else self.report.to_dict(),
        }


def tour(
    workspace: Path,
    *,
    dtype: str = "auto",
    report_dir: Path | None = None,
    on_command: Callable[[str], None] | None = None,
    on_port: Callable[[PortResult], None] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Port the shipped model and prove the port.

    Args:
        workspace: where the port is written.
        dtype: of the port; "auto" follows the model (float16).
        report_dir: where the report is written; `report/` in the workspace by default.
        on_command: called with the command that does the same, before each step.
        on_port: called with the outcome of `new`.
        progress: called with (phase, done, total).

    Raises:
        WorkspaceError: the workspace holds a port of a Llama already.
        PortError: a library or disk space is missing.
    """
    from trtllm_port.porting.create import create_port
    from trtllm_port.verification import verify

    tell = on_command or (lambda _command: None)
    started = time.perf_counter()
    report = None
    with _one_thread():
        tell(shell_command(["trtllm-port", "new", MODEL_DIR, "--workspace", workspace]))
        new = create_port(MODEL_DIR, workspace=workspace, progress=progress)
        if on_port is not None:
            on_port(new)
        if new.check is not None and new.check.passed:
            directory = report_dir or workspace / "report"
            words = ["trtllm-port", "verify", MODEL_DIR, "--workspace", workspace]
            tell(shell_command([*words, "--dtype", dtype, "--report-dir", directory]))
            report = verify(MODEL_DIR, workspace=workspace, dtype=dtype, report_dir=directory, progress=progress)
    return DemoResult(workspace=workspace, new=new, report=report, seconds=time.perf_counter() - started)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The model is so small that threads would mostly wait for each other, on a busy machine for minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
