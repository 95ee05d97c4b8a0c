"""`make bench` and `make bench-large`: speed and memory as ratios within one run, written as pages of docs.

Nothing here is asserted; the goals stand beside the figures, and a missed goal is shown as missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from measure import Cost, measure, median_of

HERE = Path(__file__).parent
CLI = Path(sys.executable).with_name("trtllm-port")
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    other: str
    ratio: str
    goal: str
    met: bool


def start_up(_: Path) -> list[Row]:
    """`--help` against an empty Typer application."""
    ours, empty = median_of([CLI, "--help"], 9), median_of([sys.executable, HERE / "empty_typer.py", "--help"], 9)
    ratio = ours.seconds / empty.seconds
    return [_row("`trtllm-port --help` / empty Typer application", ours, empty, ratio, "≤ 2.00", ratio <= 2)]


def convert(scratch: Path) -> list[Row]:
    """`convert` against `cp` of the same bytes; a tiny model's conversion tells what starting up costs."""
    tiny_dir = _model(scratch, "tiny", "float16")
    model_dir = _model(scratch, "2b", "float16")
    workspace = _workspace(scratch, tiny_dir)
    options = ["--output-dir", scratch / "ckpt", "--workspace", workspace]
    copies, ours, starts = [], [], []
    for _ in range(5):  # in turn: the page cache and the disk are in the same state for all
        _remove(scratch / "copy"), _remove(scratch / "ckpt")
        copies.append(measure(["cp", "-r", model_dir, scratch / "copy"]))
        ours.append(measure([CLI, "convert", "--model-dir", model_dir, *options]))
        _remove(scratch / "ckpt")
        starts.append(measure([CLI, "convert", "--model-dir", tiny_dir, *options]))
    best, cp, start = (min(costs, key=lambda cost: cost.seconds) for costs in (ours, copies, starts))
    size, peak = sum(file.stat().st_size for file in model_dir.iterdir()), max(cost.peak_bytes for cost in ours)
    work = Cost(best.seconds - start.seconds, peak)
    rate, whole = cp.seconds / work.seconds, cp.seconds / best.seconds
    rows = [
        _row(
            f"`convert` throughput / `cp` of {size / GIB:.1f} GiB, start-up taken off",
            work,
            cp,
            rate,
            "≥ 0.70",
            rate >= 0.7,
        ),
        _row("the same, the whole process", best, cp, whole, "≥ 0.70", whole >= 0.7),
        Row("`convert` peak memory", f"{peak / GIB:.2f} GiB", "", "", "< 1 GB", peak < 1e9),
    ]
    for name in (model_dir.name, "copy", "ckpt"):
        _remove(scratch / name)
    return rows


def engine(scratch: Path) -> list[Row]:
    """Hugging Face directory → fp16 engine, against the ONNX route."""
    model_dir = _model(scratch, "300m", "float16")
    workspace = _workspace(scratch, model_dir)
    script = (
        f"{CLI} convert --model-dir {model_dir} --output-dir {scratch}/ckpt16 --workspace {workspace} && {CLI} build "
        f"--checkpoint-dir {scratch}/ckpt16 --output-dir {scratch}/engine16 --workspace {workspace} "
        "--compute-capability 8.9 --max-batch-size 4 --max-input-len 1024 --max-seq-len 1024"
    )
    ours = measure(["sh", "-c", script])
    onnx = measure([sys.executable, HERE / "onnx_route.py", model_dir, scratch / "onnx"])
    ratio, memory = ours.seconds / onnx.seconds, ours.peak_bytes / onnx.peak_bytes
    peaks = f"{ours.peak_bytes / GIB:.2f} GiB", f"{onnx.peak_bytes / GIB:.2f} GiB"
    return [
        _row("directory → engine / ONNX export, parser, same builder", ours, onnx, ratio, "≤ 0.25", ratio <= 0.25),
        Row("the same, peak memory", *peaks, f"{memory:.2f}", "≤ 1.00", memory <= 1),
    ]


def executor(scratch: Path) -> list[Row]:
    """Reference executor against `transformers.generate`, eager attention."""
    model_dir = _model(scratch, "300m", "float32")
    workspace = _workspace(scratch, model_dir)
    engine_dir = scratch / "engine32"
    measure([CLI, "convert", "--model-dir", model_dir, "--output-dir", scratch / "ckpt32", "--workspace", workspace])
    build = [CLI, "build", "--checkpoint-dir", scratch / "ckpt32", "--output-dir", engine_dir, "--workspace", workspace]
    measure([*build, "--backend", "reference", "--max-seq-len", "1024", "--max-input-len", "512"])
    command = [sys.executable, HERE / "executor.py", engine_dir, model_dir]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    rows = []
    for phase, goal in (("prefill", 0.95), ("decode", 1.0)):
        ours, hf = result[phase]["ours"], result[phase]["hf"]
        what = f"reference executor {phase} speed / transformers, float32, {result['threads']} threads"
        cells = f"{ours * 1e3:.0f} ms", f"{hf * 1e3:.0f} ms", f"{hf / ours:.2f}"
        rows.append(Row(what, *cells, f"≥ {goal:.2f}", hf / ours >= goal))
    return rows


def quantized(scratch: Path) -> list[Row]:
    """Reference executor with weights of 4 bits: memory beside the file, and a decode step beside that of 16 bits."""
    model_dir = _model(scratch, "2b", "float16")
    workspace = _workspace(scratch, model_dir)
    found = {}
    for name, options in {"plain": [], "W4A16": ["--quant-algo", "W4A16"]}.items():
        checkpoint, engine_dir = scratch / f"ckpt-{name}", scratch / f"engine-{name}"
        convert = [CLI, "convert", "--model-dir", model_dir, "--output-dir", checkpoint, "--workspace", workspace]
        measure([*convert, *options])
        build = [CLI, "build", "--checkpoint-dir", checkpoint, "--output-dir", engine_dir, "--workspace", workspace]
        measure([*build, "--backend", "reference", "--max-seq-len", "64"])
        command = [sys.executable, HERE / "quantized.py", engine_dir]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        _remove(checkpoint), _remove(engine_dir)
    plain, narrow = found["plain"], found["W4A16"]
    held, file = narrow["peak"] - narrow["before"], narrow["file"]
    sizes = f"{held / GIB:.2f} GiB", f"{file / GIB:.2f} GiB", f"{held / file:.2f}"
    steps = f"{narrow['step'] * 1e3:.0f} ms", f"{plain['step'] * 1e3:.0f} ms", f"{narrow['step'] / plain['step']:.2f}"
    return [
        Row("memory of a W4A16 Llama 2b in the executor / its checkpoint", *sizes, "≤ 1.50", held <= 1.5 * file),
        Row("a decode step of it / of the same model in float16", *steps, "", True),
    ]


def diff_layers(scratch: Path, size: str) -> list[Row]:
    """`diff-layers` of a model that is read layer by layer, against the two forwards that its noise floor needs."""
    model_dir = _model(scratch, size, "bfloat16")
    workspace = _workspace(scratch, model_dir)
    forwards = measure([sys.executable, HERE / "hugging_face_forwards.py", model_dir, "bfloat16", "512"])
    ours = measure([CLI, "diff-layers", model_dir, "--workspace", workspace, "--tokens", "512"])
    ratio, peak = ours.seconds / forwards.seconds, ours.peak_bytes / 1e9
    what = f"`diff-layers`, Llama {size}, bfloat16, 512 tokens"
    return [
        _row(f"{what} / two forwards of transformers", ours, forwards, ratio, "≤ 1.50", ratio <= 1.5),
        Row(f"{what}: peak resident memory, mapped files included", f"{peak:.2f} GB", "", "", "≤ 6.0 GB", peak <= 6),
        Row(f"{what}: of it not of files, sampled", f"{ours.anonymous_bytes / 1e9:.2f} GB", "", "", "", True),
    ]


def _model(scratch: Path, size: str, dtype: str) -> Path:
    """A random Llama's directory, made by a process of its own."""
    directory = scratch / f"llama-{size}-{dtype}"
    measure([sys.executable, HERE / "models.py", size, dtype, directory])
    return directory


def _workspace(scratch: Path, model_dir: Path) -> Path:
    """A workspace with a generated Llama port; made once."""
    workspace = scratch / "workspace"
    if not (workspace / "models" / "llama").is_dir():
        measure([CLI, "new", model_dir, "--workspace", workspace])
    return workspace


def _row(what: str, ours: Cost, other: Cost, ratio: float, goal: str, met: bool) -> Row:
    return Row(what, f"{ours.seconds:.2f} s", f"{other.seconds:.2f} s", f"{ratio:.2f}", goal, met)


def _remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", str(path)], check=True)


def _machine() -> str:
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in cpus if line.startswith("model name")]
    memory = psutil.virtual_memory().total / GIB
    versions = f"Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"
    return f"{psutil.cpu_count()} × {names[0] if names else platform.processor()}, {memory:.0f} GiB, {versions}"


def render(rows: list[Row]) -> str:
    """The page as Markdown."""
    lines = [
        "# Benchmarks",
        "",
        f"Measured by `tests/benchmarks/run.py` on {_machine()}. Ratios are of one run.",
        "",
        "| what | this package | the other | ratio | goal | met |",
        "|---|---:|---:|---:|---:|---|",
        *(f"| {r.what} | {r.ours} | {r.other} | {r.ratio} | {r.goal} | {'yes' if r.met else '**no**'} |" for r in rows),
    ]
    return "\n".join(lines) + "\n"


BENCHMARKS: dict[str, Callable[[Path], list[Row]]] = {
    "start-up": start_up,
    "executor": executor,
    "engine": engine,
    "convert": convert,
    "quantized": quantized,
    "diff-layers": lambda scratch: diff_layers(scratch, "2b"),
    "diff-layers-8b": lambda scratch: diff_layers(scratch, "8b"),
}
ON_DEMAND = ("diff-layers-8b",)  # `make bench-large`: 16 GB on disk and many minutes


def main() -> None:
    """Run the chosen benchmarks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="the page to write; printed when not given")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="run this one (repeatable)")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="trtllm-port-bench-") as scratch:
        for name in arguments.only or [name for name in BENCHMARKS if name not in ON_DEMAND]:
            print(f"{name} …", file=sys.stderr)
            rows += BENCHMARKS[name](Path(scratch))
    page = render(rows)
    if arguments.output:
        arguments.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
