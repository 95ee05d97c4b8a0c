"""`trtllm-port summarize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal.render_summaries import render_summaries

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
    console.emit(result, render_summaries, as_json=as_json)
    return int(result.comparison is not None and result.comparison.verdict == "fail")
