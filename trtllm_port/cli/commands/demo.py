"""`trtllm-port demo`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal.render_port import render_port
from trtllm_port.cli.terminal.render_report import render_report
from trtllm_port.foundation.progress import Progress

if TYPE_CHECKING:
    from trtllm_port.demo.tour import DemoResult

Place = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="Where port and report are written. [default: a new temporary directory]",
        show_default=False,
    ),
]


def demo(
    workspace: Place = None,
    dtype: options.Dtype = "auto",
    report_dir: options.ReportDir = None,
    as_json: options.Json = False,
) -> int:
    """Port the small Llama that ships with this package, and prove the port: the whole way in a minute or two.

    Nothing is downloaded and no GPU is needed. Exit codes are those of `verify`.
    """
    from trtllm_port.demo.tour import tour

    place = workspace or Path(tempfile.mkdtemp(prefix="trtllm-port-demo-"))
    with _steps() as progress:
        result = tour(
            place,
            dtype=dtype,
            report_dir=report_dir,
            on_command=_announce,
            on_port=None if as_json else render_port,
            progress=progress,
        )
    console.emit(result, render, as_json=as_json)
    return result.exit_code


def _announce(command: str) -> None:
    console.note("")
    console.note(f"$ {command}")


def render(result: DemoResult) -> None:
    """What `verify` shows, and where everything is."""
    if result.report is None:
        said = "differs from Hugging Face" if result.verdict == "fail" else "could not be checked"
        console.line(f"{result.verdict.replace('_', ' ').upper()}: the generated port {said}, so it was not verified")
    else:
        render_report(result.report)
    console.line()
    console.line(f"port:    {result.new.port.package_dir / 'model.py'}")
    if result.report is not None and result.report.report_dir is not None:
        console.line(f"report:  {result.report.report_dir / 'report.html'}")
    console.line(f"verdict: {result.verdict.replace('_', ' ')}, after {result.seconds:.0f} s")


@contextmanager
def _steps() -> Iterator[Progress]:
    """Progress bars on a terminal; elsewhere one line per phase on stderr as it begins."""
    with console.progress() as bars:
        seen: set[str] = set()

        def tell(phase: str, done: int, total: int) -> None:
            if bars is not None:
                bars(phase, done, total)
            elif phase not in seen:
                seen.add(phase)
                console.note(f"  {phase} ...")

        yield tell
