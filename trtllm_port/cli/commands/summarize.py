"""`trtllm-port summarize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtllm_port.cli.terminal import console, options

if TYPE_CHECKING:
    from trtllm_port.evaluation.summarize_compare import Comparison
    from trtllm_port.evaluation.summarize_result import Side, SummarizeResult

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "--dataset-dir",
        metavar="NAME_OR_PATH",
        help="A dataset on the hub, or a local JSON Lines, CSV or Parquet file. [default: the shipped articles]",
        show_default=False,
    ),
]
DatasetConfig = Annotated[
    str | None, typer.Option("--dataset-config", metavar="NAME", help="Configuration of a hub dataset, such as 3.0.0.")
]
Split = Annotated[str, typer.Option("--split", help="Split of a hub dataset.")]
TestTrtLlm = Annotated[bool, typer.Option("--test-trt-llm", help="Let the engine write. [default: both write]")]
TestHf = Annotated[bool, typer.Option("--test-hf", help="Let Hugging Face write. [default: both write]")]
NumSamples = Annotated[int, typer.Option("--num-samples", min=1, metavar="N", help="Articles at most.")]
MaxIte = Annotated[
    int | None, typer.Option("--max-ite", min=1, metavar="N", help="Batches at most, in place of `--num-samples`.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, metavar="N", help="Prompts at once. [default: all that the engine takes]"),
]
OutputLen = Annotated[int, typer.Option("--output-len", min=1, metavar="N", help="New tokens per article at most.")]
MaxInputLength = Annotated[
    int | None,
    typer.Option(
        "--max-input-length",
        "--max-input-len",
        min=1,
        metavar="N",
        help="Tokens of a prompt at most; longer articles are cut. [default: all that the engine takes]",
    ),
]
OutputDir = Annotated[
    Path | None, typer.Option("--output-dir", metavar="DIR", help="Where to write all texts and scores.")
]


def summarize(
    engine_dir: options.EngineDir,
    hf_model_dir: options.HfModelDir,
    dataset: Dataset = None,
    dataset_config: DatasetConfig = None,
    split: Split = "test",
    test_trt_llm: TestTrtLlm = False,
    test_hf: TestHf = False,
    num_samples: NumSamples = 20,
    max_ite: MaxIte = None,
    batch_size: BatchSize = None,
    output_len: OutputLen = 100,
    max_input_length: MaxInputLength = None,
    backend: options.Backend = "auto",
    output_dir: OutputDir = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Sum up articles with an engine and with Hugging Face, and compare their ROUGE."""
    from trtllm_port.evaluation.summarize import SummarizeOptions
    from trtllm_port.evaluation.summarize import summarize as stage
    from trtllm_port.huggingface.hub import locate_model

    both = not (test_trt_llm or test_hf)
    with console.progress() as progress:
        result = stage(
            engine_dir,
            locate_model(hf_model_dir, weights=test_hf or both),
            dataset=dataset,
            options=SummarizeOptions(
                test_trt_llm=test_trt_llm or both,
                test_hf=test_hf or both,
                dataset_config=dataset_config,
                split=split,
                num_samples=num_samples,
                max_batches=max_ite,
                batch_size=batch_size,
                output_len=output_len,
                max_input_len=max_input_length,
                backend=backend,
                trust_remote_code=trust_remote_code,
                output_dir=output_dir,
            ),
            progress=progress,
        )
    if result.note:
        console.note(f"executor: {result.executor}, because {result.note}")
    console.emit(result, render, as_json=as_json)
    return int(result.comparison is not None and result.comparison.verdict == "fail")


def render(result: SummarizeResult) -> None:
    """Both sides as the legacy script named them, then the comparison."""
    console.line(f"{result.samples} of {result.dataset}, batches of {result.batch_size}")
    console.line()
    for title, side in (("TensorRT network", result.engine), ("Hugging Face", result.hugging_face)):
        if side is not None:
            _render_side(title, side)
    if result.comparison is not None:
        _render_comparison(result.comparison)


def render_rouge(kinds: Mapping[str, Mapping[str, Any]]) -> None:
    """Show the differences by kind of ROUGE; `kinds` as in the JSON form of a comparison."""
    rows = [
        (
            kind,
            f"{each['mean']:+.2f}",
            f"{each['low']:+.2f} to {each['high']:+.2f}",
            f"{each['allowed']:+.2f}",
            "-" if each["detectable"] is None else f"{each['detectable']:+.2f}",
            each["verdict"].replace("_", " "),
        )
        for kind, each in kinds.items()
    ]
    console.table(("ROUGE", "difference", "95 % interval", "allowed", "loss it could find", "verdict"), rows)


def _render_side(title: str, side: Side) -> None:
    console.line(f"{title}: {side.executor}")
    console.line(f"  total latency: {side.seconds:.3f} s")
    console.line(f"  total output tokens: {side.total_output_tokens}")
    console.line(f"  tokens per second: {side.tokens_per_second:.1f}")
    for kind, score in side.rouge.items():
        console.line(f"  {kind}: {score:.2f}")
    console.line()


def _render_comparison(comparison: Comparison) -> None:
    render_rouge({kind: asdict(difference) for kind, difference in comparison.rouge.items()})
    console.line(f"generated length: {comparison.length_ratio:.2f} times Hugging Face's")
    console.line(f"equal texts: {comparison.equal_outputs:.0%}")
    console.line(f"verdict: {comparison.verdict.replace('_', ' ')}: {comparison.reason}")
