"""`trtllm-port diff-layers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal import verification_options as verification

ModelOrBundle = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_DIR",
        help="Hugging Face model: a local directory or a hub id; or a bundle that `--save` wrote.",
        show_default=False,
    ),
]
EngineDirOption = Annotated[
    Path | None,
    typer.Option(
        "--engine-dir", metavar="ENGINE", help="Compare this engine's network instead of converting and defining anew."
    ),
]


def diff_layers(
    model_dir: ModelOrBundle,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    random_weights: options.RandomWeights = False,
    prompt_file: verification.PromptFile = None,
    tokens: verification.Tokens = None,
    engine_dir: EngineDirOption = None,
    report_dir: options.ReportDir = None,
    save: verification.Save = None,
    device: verification.Device = "cpu",
    seed: verification.Seed = 0,
    quant_algo: options.QuantAlgo = None,
    group_size: options.GroupSize = 128,
    exclude_modules: options.ExcludeModules = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Compare every module of a port with Hugging Face and name the first that differs.

    A bundle is compared again with what it recorded of Hugging Face: neither its weights nor transformers are needed.

    Exit code 0: the port is as close to Hugging Face as Hugging Face is to itself; 1: it differs, or it cannot be told.
    """
    from trtllm_port.verification import DiffSettings, is_bundle
    from trtllm_port.verification import diff_layers as compare

    if is_bundle(Path(model_dir)):
        given = {"dtype": dtype != "auto", "random-weights": random_weights, "prompt-file": prompt_file, "save": save}
        return _replay(model_dir, given | {"tokens": tokens, "seed": seed}, engine_dir, report_dir, device, as_json)
    settings = DiffSettings(
        prompt_file=prompt_file,
        tokens=tokens,
        engine_dir=engine_dir,
        save=save,
        device=device,
        seed=seed,
        trust_remote_code=trust_remote_code,
        quantize=options.quantize_options(quant_algo, group_size, exclude_modules),
    )
    return verification.report_on(
        compare,
        model_dir,
        workspace=workspace,
        dtype=dtype,
        random_weights=random_weights,
        report_dir=report_dir,
        settings=settings,
        as_json=as_json,
    )


def _replay(
    bundle: str,
    given: dict[str, object],
    engine_dir: Path | None,
    report_dir: Path | None,
    device: str,
    as_json: bool,
) -> int:
    from trtllm_port.errors import PortError
    from trtllm_port.verification import replay

    named = [f"`--{name}`" for name, value in given.items() if value]
    if named:
        raise PortError(f"`{bundle}` is a bundle, which settles what is compared", hint=f"leave out {', '.join(named)}")
    with console.progress() as progress:
        report = replay(Path(bundle), engine_dir=engine_dir, device=device, report_dir=report_dir, progress=progress)
    return verification.show(report, as_json=as_json)
