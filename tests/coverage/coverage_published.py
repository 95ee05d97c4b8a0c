"""Configs as people publish them: each ported with all of its options, and proven at a size that keeps them.

A directory holds one directory for each config, with its `config.json`. A quantized one is ported as if it were plain.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coverage_measure import DTYPES, FallsShortError, StagedMeasurement, write_tiny
from coverage_rows import DIFFERS, REFUSED, TableRow

from trtllm_port.errors import ConfigError, PortError

DOCS = Path(__file__).parents[2] / "docs"
PAGE, DATA = DOCS / "coverage-published.md", DOCS / "coverage-published.json"
DIRECTORY = "COVERAGE_PUBLISHED"  # the environment variable that names it
UNKNOWN = "not run by transformers"
TEXT = """\
# Published configs

Made by `make coverage-published`; do not edit.

`docs/coverage.md` measures ports at each class's defaults. These are the `config.json` files of {total} models as they
are published, which set options that no default shows. Each row: `trtllm-port new` writes the port, with zero edits;
the port takes the published config; and `verify --random-weights` proves it in float32 at a tiny size that no trace has
seen and that keeps every option. What is published quantized is ported as if it were plain.

Versions: {versions}. {seconds} minutes of processor time altogether.

**{passed} of the {known} that the installed transformers runs pass ({share} %).** The others say why:

{short}

{unknown} are of types, or have values, that the installed transformers itself does not run:

{not_run}

| config | family | status | lines | longest class | seconds |
|---|---|---|---:|---:|---:|
{rows}
"""


class PublishedMeasurement(StagedMeasurement):
    """The stages from a published config to a proof."""

    def __init__(self, name: str, directory: Path) -> None:
        self.given = directory / name
        self.given.mkdir()
        shutil.copyfile(Path(os.environ[DIRECTORY]) / name / "config.json", self.given / "config.json")
        kind = json.loads((self.given / "config.json").read_text(encoding="utf-8")).get("model_type", "")
        super().__init__(name, str(kind), directory, "new")

    def refused(self, error: PortError) -> str:
        if isinstance(error, ConfigError):
            return UNKNOWN if self.stage == "new" else REFUSED
        return UNKNOWN if "does not know" in error.message else REFUSED

    def falls_short(self, status: str, reason: str) -> None:
        super().falls_short(status, reason.replace(f"{self.directory}/", ""))

    def stages(self) -> None:
        from trtllm_port.porting.create import create_port
        from trtllm_port.registry.ports import find_port

        result = create_port(self.given, workspace=self.directory)
        self.read(result)
        self.stage = "convert"
        find_port(self.directory, result.port.architecture).cls.config_class.from_hugging_face(self._plain())
        self.stage = "verify"
        tiny = self.directory / "tiny"
        write_tiny(self.directory / "plain", tiny)
        report = self.verify(tiny, DTYPES[0])
        if report.verdict != "pass":
            raise FallsShortError(DIFFERS, report.summary)

    def _plain(self) -> Path:
        """The config as that of the model which it was quantized from."""
        plain = self.directory / "plain"
        plain.mkdir()
        config = json.loads((self.given / "config.json").read_text(encoding="utf-8"))
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            part.pop("quantization_config", None)
        (plain / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return plain


def names() -> list[str]:
    """The configs of the directory."""
    return sorted(path.parent.name for path in Path(os.environ[DIRECTORY]).glob("*/config.json"))


def load() -> dict[str, Any]:
    """The committed data; empty if there is none."""
    empty: dict[str, Any] = {"versions": {}, "rows": []}
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else empty


def write(rows: Sequence[TableRow], versions: dict[str, str]) -> None:
    """Write data, a row a line, and page; rows of other configs stay."""
    known = {row["model_type"]: row for row in load()["rows"]} | {row.model_type: row.to_dict() for row in rows}
    data = {"versions": versions, "rows": [known[name] for name in sorted(known)]}
    lines = ",\n    ".join(json.dumps(row) for row in data["rows"])
    DATA.write_text(f'{{"versions": {json.dumps(versions)}, "rows": [\n    {lines}\n]}}\n', encoding="utf-8")
    PAGE.write_text(render(data), encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """The page."""
    rows = [TableRow(**row) for row in data["rows"]]
    known = [row for row in rows if row.status != UNKNOWN]
    passed = sum(row.passes for row in known)
    return TEXT.format(
        total=len(rows),
        versions=", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        seconds=f"{sum(row.seconds for row in rows) / 60:.0f}",
        passed=passed,
        known=len(known),
        share=f"{100 * passed / max(len(known), 1):.0f}",
        short=_listed([row for row in known if not row.passes]),
        unknown=len(rows) - len(known),
        not_run=_listed([row for row in rows if row.status == UNKNOWN]),
        rows="\n".join(map(_line, rows)),
    )


def _listed(rows: Sequence[TableRow]) -> str:
    lines = [f"- {row.model_type}: {row.status} at {row.stage}: {_escape(row.reason)}" for row in rows]
    return "\n".join(lines) or "- none"


def _line(row: TableRow) -> str:
    cells = [row.model_type, row.family, row.status, row.lines, row.longest_class, row.seconds]
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
