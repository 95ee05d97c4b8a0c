"""`trtllm-port verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtllm_port.cli import options, verification

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
NumSamples = Annotated[int, typer.Option("--num-samples", min=1, metavar="N", help="Articles for ROUGE at most.")]
DEFAULT_ARTICLES = 16


def verify(
    model_dir: options.ModelDir,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    random_weights: options.RandomWeights = False,
    report_dir: options.ReportDir = None,
    backend: VerifyBackend = "auto",
    compute_capability: ComputeCapability = None,
    prompt_file: verification.PromptFile = None,
    tokens: verification.Tokens = None,
    max_output_len: NewTokens = 200,
    dataset: Dataset = None,
    num_samples: NumSamples = DEFAULT_ARTICLES,
    save: verification.Save = None,
    device: verification.Device = "cpu",
    seed: verification.Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Take a port all the way and prove it: convert, build, prompt, ROUGE, diff-layers; one verdict, one report.

    Exit code 0: every stage passes; 1: the port differs from Hugging Face, or it cannot be told.
    """
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
        articles=num_samples,
        save=save,
    )
    return verification.report_on(
        prove,
        model_dir,
        workspace=workspace,
        dtype=dtype,
        random_weights=random_weights,
        report_dir=report_dir,
        settings=settings,
        as_json=as_json,
    )
