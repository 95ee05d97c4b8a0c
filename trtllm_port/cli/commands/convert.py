"""`trtllm-port convert`: Hugging Face weights in, a checkpoint out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.errors import PortError
from trtllm_port.foundation.quoting import shell_command

if TYPE_CHECKING:
    from trtllm_port.conversion import ConvertResult


Dequantize = Annotated[
    bool, typer.Option("--dequantize", help="Of a quantized model: its weights as they were before, in --dtype.")
]
CalibDataset = Annotated[
    str | None,
    typer.Option(
        "--calib-dataset",
        metavar="NAME_OR_PATH",
        help="Articles that show how large inputs are, with FP8 and W8A8. [default: the small set in the package]",
        show_default=False,
    ),
]
CalibSize = Annotated[int, typer.Option("--calib-size", min=1, metavar="N", help="Articles at most.")]
UseWeightOnly = Annotated[
    bool, typer.Option("--use_weight_only", help="As `--quant-algo`, in TensorRT-LLM's older words.")
]
WeightOnlyPrecision = Annotated[
    Literal["int8", "int4"], typer.Option("--weight_only_precision", help="With `--use_weight_only`.")
]
WEIGHT_ONLY: dict[str, options.QuantAlgorithm] = {"int8": "W8A16", "int4": "W4A16"}


def convert(
    model_dir: options.ModelDirOption,
    output_dir: options.OutputDir,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    tp_size: Annotated[int, typer.Option("--tp-size", min=1, help="Tensor parallel size.")] = 1,
    pp_size: Annotated[int, typer.Option("--pp-size", min=1, help="Pipeline parallel size.")] = 1,
    dequantize: Dequantize = False,
    quant_algo: options.QuantAlgo = None,
    group_size: options.GroupSize = 128,
    exclude_modules: options.ExcludeModules = None,
    calib_dataset: CalibDataset = None,
    calib_size: CalibSize = 64,
    use_weight_only: UseWeightOnly = False,
    weight_only_precision: WeightOnlyPrecision = "int8",
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Convert Hugging Face weights into a checkpoint: `config.json` and one `rank{r}.safetensors` per rank.

    A checkpoint that is there already is replaced when the new one is complete.
    """
    from trtllm_port.conversion import convert_checkpoint
    from trtllm_port.evaluation.calibration import calibrate
    from trtllm_port.huggingface.hub import locate_model
    from trtllm_port.layers import Mapping

    algorithm = quant_algo or (WEIGHT_ONLY[weight_only_precision] if use_weight_only else None)
    quantize = options.quantize_options(algorithm, group_size, exclude_modules)
    if quantize is not None and dequantize:
        raise PortError("`--dequantize` and a quantization exclude each other", hint="give one of them")
    directory = locate_model(model_dir)
    with console.progress() as progress:
        if quantize is not None and quantize.wants_ranges:
            found = calibrate(
                directory,
                dataset=calib_dataset,
                samples=calib_size,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
            console.note(f"calibrated on {found.text}")
            quantize = replace(quantize, ranges=found.ranges)
        result = convert_checkpoint(
            directory,
            output_dir,
            workspace=workspace,
            dtype=dtype,
            mapping=Mapping(tp_size=tp_size, pp_size=pp_size),
            weights=quantize or ("dequantize" if dequantize else "keep"),
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
    console.emit(result, render, as_json=as_json)
    for text in left_out(result) if as_json else [f"next: {_next_command(output_dir, workspace)}"]:
        console.note(text)


def _next_command(output_dir: Path, workspace: Path) -> str:
    place = [] if workspace == Path(".") else ["--workspace", workspace]
    return shell_command(["trtllm-port", "build", "--checkpoint-dir", output_dir, "--output-dir", "ENGINE", *place])


def render(result: ConvertResult) -> None:
    """What was written, and what of the source was left out."""
    console.line(f"{result.architecture} in {result.dtype}, {result.tensors:,} tensors, {result.size / 1e6:,.1f} MB")
    for kind, count in Counter(result.quantized.values()).items():
        console.line(f"{count} weights in {kind}")
    for text in left_out(result):
        console.line(text)
    console.line(f"wrote {result.output_dir} in {result.seconds:.1f} s")


def left_out(result: ConvertResult) -> Iterator[str]:
    """A line for each reason why tensors of the source are in no file, or not as they were."""
    yield from _grouped("dropped", result.dropped)
    yield from _grouped(f"written in {result.dtype}, not as it was quantized:", result.dequantized)


def _grouped(done: str, reasons: dict[str, str]) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield f"{done} {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
