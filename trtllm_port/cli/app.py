"""The application: mounts one command per file and turns every outcome into an exit code.

Exit codes: 0 pass, 1 the port differs from Hugging Face, 2 usage or input error, 3 the environment lacks something,
70 a bug of ours (with a traceback), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer

from trtllm_port import __version__
from trtllm_port.cli.commands.build import build
from trtllm_port.cli.commands.convert import convert
from trtllm_port.cli.commands.demo import demo
from trtllm_port.cli.commands.diff_layers import diff_layers
from trtllm_port.cli.commands.doctor import doctor
from trtllm_port.cli.commands.inspect import inspect
from trtllm_port.cli.commands.models import models
from trtllm_port.cli.commands.new import new
from trtllm_port.cli.commands.run import run
from trtllm_port.cli.commands.summarize import summarize
from trtllm_port.cli.commands.verify import verify
from trtllm_port.cli.terminal import console
from trtllm_port.cli.terminal.options import HuggingFaceCommand, PortCommand
from trtllm_port.errors import PortError

BUG, INTERRUPTED, TERMINATED = 70, 130, 143

app = typer.Typer(
    name="trtllm-port",
    help="Port a Hugging Face decoder-only language model to native TensorRT, and prove the port.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_WITHOUT_TRANSFORMERS = (build, diff_layers, models, doctor)  # `diff-layers` needs it for a model, not for a bundle
for _command in (inspect, new, convert, build, run, summarize, verify, diff_layers, models, doctor, demo):
    _kind = PortCommand if _command in _WITHOUT_TRANSFORMERS else HuggingFaceCommand
    app.command(_command.__name__.replace("_", "-"), cls=_kind)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.line(f"trtllm-port {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Port a Hugging Face decoder-only language model to native TensorRT, and prove the port."""
    if context.invoked_subcommand is None:
        context.get_help()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: the only place that catches errors."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with _clean_termination():
            outcome = app(words, prog_name="trtllm-port", standalone_mode=False)
    except Exception as error:
        return _explain(error, as_json=as_json)
    if outcome == INTERRUPTED:  # what Typer makes of KeyboardInterrupt
        console.note("interrupted; nothing half-written was left")
    return outcome if isinstance(outcome, int) else 0


@contextmanager
def _clean_termination() -> Iterator[None]:
    """Let SIGTERM unwind through every clean-up, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong and return the exit code that stands for it."""
    kind, hint, exit_code = type(error).__name__, None, 2
    if isinstance(error, PortError):
        message, hint, exit_code = error.message, error.hint, error.exit_code
    elif isinstance(error, typer.TyperException):  # a wrong option, a missing argument
        context = getattr(error, "ctx", None)
        kind, message = "UsageError", error.format_message()
        hint = None if context is None else f"run `{context.command_path} --help` to see the options"
    elif isinstance(error, OSError) and error.filename is not None:  # no permission, a file where a directory must be
        message = f"`{error.filename}`: {error.strerror}"
    else:
        console.trace(error)
        kind, message, exit_code = "Bug", "this is a bug in trtllm-port", BUG
    console.error(message, hint=hint, kind=kind, exit_code=exit_code, as_json=as_json)
    return exit_code


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)  # unwinds through every clean-up


if __name__ == "__main__":
    sys.exit(main())
