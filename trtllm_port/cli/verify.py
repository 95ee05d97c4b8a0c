"""`trtllm-port verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtllm_port.cli import console, options
from trtllm_port.cli.diff_layers import Device, PromptFile, Seed, Tokens
from trtllm_port.cli.render_report import render

ComputeCapability = Annotated[
    list[str] | None,
    typer.Option(
        "--compute-capability",
        metavar="X.Y",
        help="GPUs to compile for; may be repeated. [default: as `build`]",
        show_default=False,
    ),
]
VerifyBackend = Annotated[
    options.BackendChoice,
    typer.Option("--backend", help="What `build` compiles for; `reference` compiles nothing."),
]
NewTokens = Annotated[int, typer.Option("--max-output-len", min=1, metavar="N", help="Greedy tokens per prompt.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", metavar="NAME_OR_PATH", help="Articles for ROUGE. [default: the small set in the package]"
    ),
]


def verify(
    model_dir: options.ModelDir,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    random_weights: options.RandomWeights = False,
    report_dir: options.ReportDir = None,
    backend: VerifyBackend = "auto",
    compute_capability: ComputeCapability = None,
    prompt_file: PromptFile = None,
    tokens: Tokens = 512,
    max_output_len: NewTokens = 200,
    dataset: Dataset = None,
    device: Device = "cpu",
    seed: Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Take a port all the way and prove it: convert, build, prompt, ROUGE, diff-layers; one verdict, one report.

    Exit code 0: every stage passes; 1: the port differs from Hugging Face, or it cannot be told.
    """
    from trtllm_port.hub import locate_model
    from trtllm_port.verification import VerifySettings
    from trtllm_port.verification import verify as prove

    settings = VerifySettings(
        prompt_file=prompt_file,
        tokens=tokens,
        device=device,
        seed=seed,
        trust_remote_code=trust_remote_code,
        backend=backend,
        compute_capabilities=tuple(compute_capability or ()),
        max_new_tokens=max_output_len,
        dataset=dataset,
    )
    with console.progress() as progress:
        report = prove(
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
