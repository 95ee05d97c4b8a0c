"""`make coverage`: every causal-LM model type of transformers, from `config.json` to a proven port and an engine.

Writes docs/coverage.json and docs/coverage.md. What was measured is kept under build/coverage, by the digest of the
sources: a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # the folder is no package
os.environ["HF_HUB_OFFLINE"] = "1"

import coverage_page  # noqa: E402  (the path must be known first)
from coverage_measure import DEFECT, PASSES, Row, measure_into  # noqa: E402
from coverage_pool import GB, Ended, Limits, run_all  # noqa: E402
from coverage_types import family_of, model_types  # noqa: E402

from trtllm_port.runtime.digests import bytes_digest  # noqa: E402

SOURCES = ("trtllm_port", "layers", "runtime", "scaffolds", "tests/coverage")
LIBRARIES = ("transformers", "torch", "tensorrt-rtx-cu13")


def versions() -> dict[str, str]:
    """What the figures depend on beside our sources."""
    return {name: version(name).split("+")[0] for name in LIBRARIES}


def digest() -> str:
    """Of our sources and those versions."""
    parts = [json.dumps(versions()).encode()]
    for folder in SOURCES:
        files = (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".toml", ".j2", ".json"))
        parts += [str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() for path in files if path.is_file()]
    return bytes_digest(b"\0".join(parts)).partition(":")[2][:16]


def measure_all(types: Sequence[str], results: Path, *, jobs: int, limits: Limits) -> Iterator[Row]:
    """Measure some types; each row is kept."""
    for ended in run_all(measure_into, types, results, jobs=jobs, limits=limits):
        path = results / f"{ended.name}.json"
        if ended.problem is not None or not path.is_file():
            path.write_text(json.dumps(_broken(ended).to_dict()), encoding="utf-8")
        yield Row(**json.loads(path.read_text(encoding="utf-8")))


def _broken(ended: Ended) -> Row:
    return Row(
        model_type=ended.name,
        family=family_of(ended.name),
        status=DEFECT,
        stage="process",
        reason=ended.problem or "the process wrote no result",
        seconds=ended.seconds,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TYPE", choices=model_types(), help="these types only")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured already")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="limit for one type")
    parser.add_argument("--memory", type=float, default=Limits.memory / GB, help="limit for one type, in GB")
    return parser.parse_args()


def main() -> None:
    """Measure, and write the page."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are stopped, too
    arguments = _arguments()
    types: list[str] = arguments.only or model_types()
    results = ROOT / "build" / "coverage" / digest()
    results.mkdir(parents=True, exist_ok=True)
    kept = [] if arguments.again else [name for name in types if (results / f"{name}.json").is_file()]
    rows = [Row(**json.loads((results / f"{name}.json").read_text(encoding="utf-8"))) for name in kept]
    limits = Limits(seconds=arguments.seconds, memory=arguments.memory * GB)
    todo = [name for name in types if name not in kept]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("coverage", total=len(types), completed=len(kept))
        for row in measure_all(todo, results, jobs=arguments.jobs, limits=limits):
            rows.append(row)
            progress.update(task, advance=1, description=f"{sum(row.status == PASSES for row in rows)} pass")
            reason = f"{row.stage}: {row.reason}" if row.reason else ""
            line = f"{row.model_type}: {row.status} ({row.seconds:.0f} s) {reason}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    data = coverage_page.merge(rows, versions())
    coverage_page.write(data)
    counts = Counter(row.status for row in rows)
    print(f"{coverage_page.PAGE}: {', '.join(f'{count} {status}' for status, count in counts.most_common())}")


if __name__ == "__main__":
    main()
