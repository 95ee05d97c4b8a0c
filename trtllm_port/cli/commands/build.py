"""`trtllm-port build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtllm_port.cli.terminal import console, options

if TYPE_CHECKING:
    from trtllm_port.building import BuildResult
    from trtllm_port.runtime.engines.builder import EngineBuild

MaxBatchSize = Annotated[int, typer.Option("--max-batch-size", min=1, metavar="N", help="Prompts at once.")]
MaxInputLen = Annotated[
    int | None,
    typer.Option(
        "--max-input-len", min=1, metavar="N", help="Tokens of a prompt; 1024, or --max-seq-len where that is less."
    ),
]
MaxSeqLen = Annotated[
    int | None,
    typer.Option(
        "--max-seq-len",
        min=1,
        metavar="N",
        help="Tokens of a prompt and its continuation; 2048, or what the model was made for where that is less.",
    ),
]
BuildBackend = Annotated[
    options.BackendChoice,
    typer.Option(
        "--backend",
        help="`auto` takes `tensorrt` where it and a GPU are there, else `tensorrt_rtx`, which needs no GPU. "
        "`reference` compiles nothing.",
    ),
]
ComputeCapability = Annotated[
    list[str] | None,
    typer.Option(
        "--compute-capability",
        metavar="X.Y",
        help="GPUs to compile for; may be repeated. [default: 8.0 8.6 8.9 12.0]",
        show_default=False,
    ),
]
Taps = Annotated[
    bool, typer.Option("--taps", help="Make the output of every module readable in the engine, which slows it down.")
]


def build(
    checkpoint_dir: options.CheckpointDir,
    output_dir: options.OutputDir,
    workspace: options.Workspace = Path("."),
    backend: BuildBackend = "auto",
    compute_capability: ComputeCapability = None,
    max_batch_size: MaxBatchSize = 4,
    max_input_len: MaxInputLen = None,
    max_seq_len: MaxSeqLen = None,
    taps: Taps = False,
    as_json: options.Json = False,
) -> None:
    """Build an engine directory from a checkpoint and its port."""
    from trtllm_port.building import build_engine

    with console.progress() as progress:
        result = build_engine(
            checkpoint_dir,
            output_dir,
            workspace=workspace,
            backend=backend,
            compute_capabilities=compute_capability or (),
            max_batch_size=max_batch_size,
            max_input_len=max_input_len,
            max_seq_len=max_seq_len,
            taps=taps,
            progress=progress,
        )
    for note in result.notes:
        console.warning(note)
    console.emit(result, render, as_json=as_json)


def render_quantized(engine: EngineBuild) -> None:
    """What became of quantized weights, as a table; nothing where there are none."""
    rows = []
    for each in engine.quantized:
        size = "x".join(map(str, each.shape))
        rows.append([f"{each.dtype} {size}", each.weights, "yes" if each.kept else "no", "; ".join(each.how)])
    if rows:
        console.table(["quantized weights", "how many", "kept", "what becomes of them"], rows)
        if engine.weights_bytes is not None:
            console.line(f"weights in the engine: {engine.weights_bytes / 1e6:,.1f} MB")


def render(result: BuildResult) -> None:
    """The engine, what it is for, and its attention kernels, as text."""
    build = result.build
    console.line(f"{result.architecture} ({result.port}, {result.dtype}), {result.num_layers:,} TensorRT layers")
    console.line(
        f"batch {build.max_batch_size}, input {build.max_input_len:,}, sequence {build.max_seq_len:,} tokens at most"
    )
    if not result.engines:
        console.line("no engine was compiled (`--backend reference`): the reference executor runs the network file")
    for rank, engine in enumerate(result.engines):
        console.line(
            f"rank {rank}: compiled by {engine.library} in {engine.seconds:.1f} s, "
            f"{engine.engine_bytes / 1e6:,.1f} MB, peak memory {engine.peak_memory_bytes / 1e6:,.0f} MB"
        )
    if result.engines:
        capabilities = build.compute_capabilities
        rows = [
            [report.shape, report.layers, *("fused" if report.fused[c] else "several kernels" for c in capabilities)]
            for report in result.engines[0].attention
        ]
        console.table(["attention", "layers", *capabilities], rows)
        render_quantized(result.engines[0])
    console.line(f"wrote {result.output_dir} in {result.seconds:.1f} s")
