"""`make quantization`: formats of quantized weights by architectures, from a checkpoint to a verified port and engines.

Writes docs/quantization.json and docs/quantization.md. What was measured is kept under build/quantization, by the
digest of the sources: a run that was interrupted goes on where it was. compressed-tensors and nvidia-modelopt pack
their own formats where they can be imported: `pip install --no-deps --target DIR compressed-tensors nvidia-modelopt`,
what they miss alike, then `PYTHONPATH=DIR`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "coverage"), str(ROOT)]  # the folders are no packages
os.environ["HF_HUB_OFFLINE"] = "1"

import quantization_page as page  # noqa: E402  (the path must be known first)
from coverage_sources import digest, versions  # noqa: E402
from quantization_cells import Cell, Measurement, measured_in, prepare  # noqa: E402
from quantization_formats import ARCHITECTURES, FORMATS  # noqa: E402


def measure_row(architecture: str, formats: Sequence[str], results: Path) -> list[Cell]:
    """Measure some formats of one architecture; each cell is kept."""
    prepared = results / architecture
    if not (prepared / "model" / "model.safetensors").is_file():
        shutil.rmtree(prepared, ignore_errors=True)
        prepared.mkdir(parents=True)
        prepare(architecture, prepared)
    cells = []
    for name in formats:
        with measured_in(prepared / "cell") as directory:
            cell = Measurement(architecture, name, prepared, directory).run()
        _file(results, architecture, name).write_text(json.dumps(cell.to_dict()), encoding="utf-8")
        print(f"{cell.key} ({cell.seconds:.0f} s): {'passes' if page.passes(cell) else 'falls short'}", flush=True)
        cells.append(cell)
    return cells


def _file(results: Path, architecture: str, name: str) -> Path:
    return results / f"{architecture}-{name.replace(' ', '_')}.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these architectures or formats only")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured already")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - {*ARCHITECTURES, *FORMATS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; known are {', '.join([*ARCHITECTURES, *FORMATS])}")
    return arguments


def main() -> None:
    """Measure, and write the page after every row."""
    arguments = _arguments()
    rows = [name for name in ARCHITECTURES if name in arguments.only] or list(ARCHITECTURES)
    columns = [name for name in FORMATS if name in arguments.only] or list(FORMATS)
    results = ROOT / "build" / "quantization" / digest("tests/quantization")
    results.mkdir(parents=True, exist_ok=True)
    data = page.load()
    for row in rows:
        wanted = [name for name in columns if FORMATS[name].exists(row)]
        kept = [] if arguments.again else [name for name in wanted if _file(results, row, name).is_file()]
        cells = [Cell.from_dict(json.loads(_file(results, row, name).read_text(encoding="utf-8"))) for name in kept]
        todo = [name for name in wanted if name not in kept]
        if todo:
            cells += measure_row(row, todo, results)
        data = page.merge(data, cells, versions())
        page.write(data)
    print(f"{page.PAGE}: {sum(page.passes(Cell.from_dict(cell)) for cell in data['cells'])} cells pass")


if __name__ == "__main__":
    main()
