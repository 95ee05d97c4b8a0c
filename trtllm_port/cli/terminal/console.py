"""The only place that prints: results on stdout, everything else on stderr.

`NO_COLOR` and terminals are respected by rich. Tables in a pipe are not cut at 80 columns. What others
wrote is in much of what is printed: it is escaped here (see `quoting`), and never read as markup.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.quoting import one_line, visible

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200


class Result(Protocol):
    """What every stage returns: a frozen dataclass that knows its JSON form."""

    def to_dict(self) -> dict[str, Any]: ...


ResultT = TypeVar("ResultT", bound=Result)


def emit(result: ResultT, render: Callable[[ResultT], None], *, as_json: bool) -> None:
    """Print a stage's result: as JSON, or through `render`, which calls `line` and `table`."""
    if as_json:
        _write(json.dumps(result.to_dict(), indent=2, sort_keys=False) + "\n")
    else:
        render(result)


def line(text: str = "") -> None:
    """Print one line of a result on stdout."""
    piece(one_line(text) + "\n")


def piece(text: str) -> None:
    """Print a part of a result on stdout, at once; line ends in it stay."""
    _write(visible(text))


def _write(text: str) -> None:
    """Write on stdout, at once.

    Where nobody reads on, as behind `| head`, the rest is dropped: the exit code stands for the result, not for that.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # what is still in the buffer goes there, when Python ends at the latest
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table of a result on stdout; numbers are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = None if title is None else Text(one_line(title))
    drawn = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(f"{cell:,}" if type(cell) is int else one_line(str(cell))) for cell in row))
    console = _console(stderr=False)
    with console.capture() as captured:
        console.print(drawn)
    _write(captured.get())


def note(text: str) -> None:
    """Tell something that is no result, in one line on stderr."""
    sys.stderr.write(one_line(text) + "\n")
    sys.stderr.flush()


def warning(text: str) -> None:
    """Warn on stderr."""
    _tell("warning", "bold yellow", text)


def error(message: str, *, hint: str | None = None, kind: str, exit_code: int, as_json: bool) -> None:
    """Tell why a command failed on stderr; with `--json` also as an object on stdout."""
    _tell("error", "bold red", message)
    if hint is not None:
        _tell("hint", "bold cyan", hint)
    if as_json:
        report = {"error": {"kind": kind, "message": message, "hint": hint, "exit_code": exit_code}}
        _write(json.dumps(report, indent=2) + "\n")


def trace(error: BaseException) -> None:
    """Print where an error comes from, on stderr."""
    sys.stderr.write(visible("".join(traceback.format_exception(error))))
    sys.stderr.flush()


@contextmanager
def progress() -> Iterator[Progress | None]:
    """A progress bar per phase, on stderr, only where that is a terminal (else None).

    Hugging Face's own bars are switched off, unless its libraries are loaded already or the user wants them.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=_console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(one_line(phase), total=total or None)
            bars.update(tasks[phase], completed=done, total=total or None)

        yield update


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH)


def _tell(kind: str, style: str, text: str) -> None:
    """Print a message on stderr; its further lines are indented, so that none of them looks like another message."""
    from rich.text import Text

    indented = re.sub(r"\n(?!  )", "\n  ", visible(text))
    _console(stderr=True).print(Text.assemble((f"{kind}:", style), " ", indented), soft_wrap=True)
