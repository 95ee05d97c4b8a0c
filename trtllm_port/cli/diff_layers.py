"""`trtllm-port diff-layers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtllm_port.cli import console, options
from trtllm_port.cli.render_report import render

Tokens = Annotated[int, typer.Option("--tokens", min=2, metavar="N", help="Length of the prompt.")]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", metavar="FILE", help="A text to feed in place of the built-in one.", dir_okay=False),
]
EngineDirOption = Annotated[
    Path | None,
    typer.Option(
        "--engine-dir", metavar="ENGINE", help="Compare this engine's network instead of converting and defining anew."
    ),
]
Device = Annotated[str, typer.Option("--device", help="Torch device of Hugging Face's runs.")]
Seed = Annotated[
    int, typer.Option("--seed", help="Of random weights, and of random tokens where there is no tokenizer.")
]


def diff_layers(
    model_dir: options.ModelDir,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    random_weights: options.RandomWeights = False,
    prompt_file: PromptFile = None,
    tokens: Tokens = 512,
    engine_dir: EngineDirOption = None,
    report_dir: options.ReportDir = None,
    device: Device = "cpu",
    seed: Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Compare every module of a port with Hugging Face and name the first that differs.

    Exit code 0: the port is as close to Hugging Face as Hugging Face is to itself; 1: it differs, or it cannot be told.
    """
    from trtllm_port.hub import locate_model
    from trtllm_port.verification import DiffSettings
    from trtllm_port.verification import diff_layers as compare

    settings = DiffSettings(
        prompt_file=prompt_file,
        tokens=tokens,
        engine_dir=engine_dir,
        device=device,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    with console.progress() as progress:
        report = compare(
            locate_model(model_dir, weights=not random_weights),
            workspace=workspace,
            dtype=dtype,
            random_weights=random_weights,
            report_dir=report_dir,
            settings=settings,
            progress=progress,
        )
    console.emit(report, render, as_json=as_json)
    return report.exit_code
