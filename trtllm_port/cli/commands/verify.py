"""`trtllm-port verify`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal import verification_options as verification
from trtllm_port.cli.terminal.render_proof import render_proof
from trtllm_port.errors import ConfigError

if TYPE_CHECKING:
    from trtllm_port.verification import VerifySettings

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
Prove = Annotated[
    bool,
    typer.Option(
        "--prove",
        help="Prove the check instead: put known bugs into a copy of the port, one by one, and see that each is found.",
    ),
]
Original = Annotated[
    str | None,
    typer.Option(
        "--original",
        metavar="ORIGINAL_DIR",
        help="The unquantized model that a quantized MODEL_DIR was made of: measure what that cost, module by module.",
        show_default=False,
    ),
]
MaxKl = Annotated[
    float | None,
    typer.Option(
        "--max-kl",
        metavar="NATS",
        help="Fail where the mean KL divergence from the original is larger. [default: it is reported only]",
        show_default=False,
    ),
]
Repair = Annotated[
    str | None,
    typer.Option(
        "--repair",
        metavar="BOUND",
        help="With `--quant-algo`: leave a smallest set of modules unquantized that keeps the loss to `kl<0.01`, "
        "`top1>0.95` or `perplexity<1.01`, and verify that.",
        show_default=False,
    ),
]
DEFAULT_ARTICLES = 16
LEAVE_OUT = "leave out `--original`, `--max-kl` and `--repair`, or `--prove`"


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
    original: Original = None,
    max_kl: MaxKl = None,
    repair: Repair = None,
    save: verification.Save = None,
    prove: Prove = False,
    device: verification.Device = "cpu",
    seed: verification.Seed = 0,
    quant_algo: options.QuantAlgo = None,
    group_size: options.GroupSize = 128,
    exclude_modules: options.ExcludeModules = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Take a port all the way and prove it: convert, build, prompt, ROUGE, diff-layers; one verdict, one report.

    With `--original` or `--quant-algo`, also what a quantized model lost, which decides nothing without `--max-kl`.

    Exit code 0: every stage passes; 1: the port differs from Hugging Face, or it cannot be told, or `--max-kl` fails.
    With `--prove` 0: every bug that shows was caught; 1: one was not.
    """
    from trtllm_port.huggingface.hub import locate_model
    from trtllm_port.verification import LossBound, VerifySettings
    from trtllm_port.verification import verify as run

    if prove:
        _refuse_loss(original, max_kl, repair)
    settings = VerifySettings(
        prompt_file=prompt_file,
        tokens=tokens,
        device=device,
        seed=seed,
        trust_remote_code=trust_remote_code,
        quantize=options.quantize_options(quant_algo, group_size, exclude_modules),
        backend=backend,
        compute_capabilities=tuple(compute_capability or ()),
        max_new_tokens=max_output_len,
        dataset=dataset,
        articles=num_samples,
        repair=None if repair is None else LossBound.parse(repair),
        original=None if original is None else locate_model(original),
        max_kl=max_kl,
        save=save,
    )
    stage = partial(_prove if prove else partial(verification.report_on, run), model_dir, settings=settings)
    return stage(
        workspace=workspace, dtype=dtype, random_weights=random_weights, report_dir=report_dir, as_json=as_json
    )


def _refuse_loss(original: str | None, max_kl: float | None, repair: str | None) -> None:
    if original is not None or max_kl is not None or repair is not None:
        raise ConfigError("`--prove` proves the check of the port, which no original changes", hint=LEAVE_OUT)


def _prove(model_dir: str, *, settings: VerifySettings, random_weights: bool, as_json: bool, **options: Any) -> int:
    from trtllm_port.huggingface.hub import locate_model
    from trtllm_port.verification.calibration import with_calibration
    from trtllm_port.verification.prove import prove

    with console.progress() as progress:
        located = locate_model(model_dir, weights=not random_weights)
        settings = with_calibration(settings)
        proof = prove(located, settings=settings, random_weights=random_weights, progress=progress, **options)
    console.emit(proof, render_proof, as_json=as_json)
    return proof.exit_code
