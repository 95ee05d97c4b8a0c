"""What `diff-layers` and `verify` have in common: options, and the way from a stage to an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal.options import require_transformers
from trtllm_port.cli.terminal.render_report import render_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtllm_port.verification import Report

Tokens = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        min=2,
        metavar="N",
        help="Length of the prompt. [default: 512, or up to 2048 to pass windows and original contexts]",
        show_default=False,
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", metavar="FILE", help="A text to feed in place of the built-in one.", dir_okay=False),
]
Device = Annotated[str, typer.Option("--device", help="Torch device of Hugging Face's runs.")]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=-options.LARGEST_INT - 1,
        max=options.LARGEST_INT,
        help="Of random weights, and of random tokens where there is no tokenizer.",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="BUNDLE",
        help="Keep the network, the input and Hugging Face's numbers in a directory: `diff-layers BUNDLE` compares "
        "again, anywhere.",
        file_okay=False,
    ),
]


def report_on(
    stage: Callable[..., Report], model_dir: str, *, as_json: bool, random_weights: bool, **options: Any
) -> int:
    """Run `diff_layers` or `verify` on a local or hub model, show the report and return the exit code."""
    from trtllm_port.huggingface.hub import locate_model

    require_transformers()
    with console.progress() as progress:
        located = locate_model(model_dir, weights=not random_weights)
        report = stage(located, random_weights=random_weights, progress=progress, **options)
    return show(report, as_json=as_json)


def show(report: Report, *, as_json: bool) -> int:
    """Show a report and return its exit code."""
    console.emit(report, render_report, as_json=as_json)
    return report.exit_code
