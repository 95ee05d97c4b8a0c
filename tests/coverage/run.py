"""`make coverage`: every causal-LM model type of transformers, from `config.json` to a proven port and an engine.

`make coverage-beyond` verifies those that pass in float16, ports them with another combination of options, and tries
their ports with other configs; `make coverage-beyond BEYOND=others` does the last alone. Both write docs/coverage.json
and docs/coverage.md, or with another transformers than `constraints.txt` names, files of that release under build.
`make coverage-published` ports published configs, from a directory that holds one for each, and writes
docs/coverage-published.md. What was measured is kept under build/coverage, by the digest of the sources: a run that
was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # the folder is no package
os.environ["HF_HUB_OFFLINE"] = "1"

import coverage_page  # noqa: E402  (the path must be known first)
import coverage_published  # noqa: E402
from coverage_beyond import PARTS as BEYOND_PARTS  # noqa: E402
from coverage_beyond import BeyondMeasurement  # noqa: E402
from coverage_measure import Measurement, TableMeasurement, measure_into  # noqa: E402
from coverage_page import BEYOND, TABLE  # noqa: E402
from coverage_pool import GB, Limits, run_all  # noqa: E402
from coverage_published import PublishedMeasurement  # noqa: E402
from coverage_rows import PASSES, BeyondRow, Row, TableRow  # noqa: E402
from coverage_sources import digest, versions  # noqa: E402
from coverage_types import model_types, sample  # noqa: E402
from coverage_warnings import counted  # noqa: E402


class Part(NamedTuple):
    """A part of the data: what measures a type for it, and what a row of it is."""

    measurement: Callable[[str, Path], Measurement[Any]]
    row: type[Row]


PUBLISHED = "published"
PARTS = {
    TABLE: Part(TableMeasurement, TableRow),
    BEYOND: Part(BeyondMeasurement, BeyondRow),
    PUBLISHED: Part(PublishedMeasurement, TableRow),
}


def measure_all(part: Part, types: Sequence[str], results: Path, *, jobs: int, limits: Limits) -> Iterator[Row]:
    """Measure some types; each row is kept."""
    work = partial(measure_into, part.measurement)
    for ended in run_all(work, types, results, jobs=jobs, limits=limits):
        path = results / f"{ended.name}.json"
        if ended.problem is not None or not path.is_file():
            problem = ended.problem or "the process wrote no result"
            row = part.row.broken(ended.name, problem, ended.seconds)
            path.write_text(json.dumps(row.to_dict()), encoding="utf-8")
        yield _read(part, path)


def _read(part: Part, path: Path) -> Row:
    return part.row(**json.loads(path.read_text(encoding="utf-8")))


def _chosen(part: str, only: Sequence[str]) -> list[str]:
    """What to measure."""
    known = coverage_published.names() if part == PUBLISHED else model_types()
    chosen = [name for text in only for name in text.split(",")]
    if unknown := [name for name in chosen if name not in known]:
        sys.exit(f"there is no {', '.join(unknown)}")
    if part == BEYOND and not chosen:
        return [row["model_type"] for row in coverage_page.load()[TABLE]["rows"] if row["status"] == PASSES]
    return chosen or known


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=[], help="these types, or configs, only: a,b,c or a b c"
    )
    parser.add_argument("--sample", action="store_true", help="the types that every supported release is tried with")
    parser.add_argument(
        "--beyond", nargs="*", choices=BEYOND_PARTS, help="what passes: in float16, with other options, other configs"
    )
    parser.add_argument("--published", type=Path, metavar="DIR", help="configs as they are published")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured already")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="limit for one type")
    parser.add_argument("--memory", type=float, default=Limits.memory / GB, help="limit for one type, in GB")
    return parser.parse_args()


def main() -> None:
    """Measure, and write the page."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are stopped, too
    arguments = _arguments()
    name = PUBLISHED if arguments.published else TABLE if arguments.beyond is None else BEYOND
    part = PARTS[name]
    if arguments.beyond:
        part = part._replace(measurement=partial(BeyondMeasurement, parts=arguments.beyond))
    if arguments.published:
        os.environ[coverage_published.DIRECTORY] = str(arguments.published.resolve())
    types = _chosen(name, [*(sample() if arguments.sample else ()), *arguments.only])
    results = ROOT / "build" / "coverage" / digest("tests/coverage") / "-".join([name, *(arguments.beyond or ())])
    results.mkdir(parents=True, exist_ok=True)
    kept = [] if arguments.again else [name for name in types if (results / f"{name}.json").is_file()]
    rows = [_read(part, results / f"{name}.json") for name in kept]
    limits = Limits(seconds=arguments.seconds, memory=arguments.memory * GB)
    todo = [name for name in types if name not in kept]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("coverage", total=len(types), completed=len(kept))
        for row in measure_all(part, todo, results, jobs=arguments.jobs, limits=limits):
            rows.append(row)
            progress.update(task, advance=1, description=f"{sum(row.passes for row in rows)} pass")
            line = f"{row.model_type} ({row.seconds:.0f} s): {row.told()}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    page = coverage_published.PAGE if name == PUBLISHED else coverage_page.PAGE
    if name == PUBLISHED:
        coverage_published.write(rows, versions())
    else:
        coverage_page.write(coverage_page.merge(name, rows, versions()))
    warned, verified = counted(row.warnings for row in rows)
    print(f"{page}: {sum(row.passes for row in rows)} of {len(rows)} pass")
    print(f"{warned} of {verified} verifications warn")


if __name__ == "__main__":
    main()
