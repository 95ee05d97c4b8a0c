"""`docs/coverage.json` and the page made from it.

They are of the transformers that `constraints.txt` names. What is measured with another release is written under
`build/coverage-5.24`, and nothing of it is committed.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coverage_rows import NO_ENGINE, PASSES, STATUSES, BeyondRow, Row, TableRow
from coverage_types import DENSE, family_of, model_types, sizes_of_families, table
from coverage_warnings import counted, told

ROOT = Path(__file__).parents[2]
TABLE, BEYOND = PARTS = ("table", "beyond")
NOT_MEASURED = "not measured"


def minor(version: str) -> str:
    """The minor release that a version belongs to: "5.24" for "5.24.0"."""
    return ".".join(version.split(".")[:2])


def place(installed: str, pinned: str) -> Path:
    """Where data and page of a release of transformers are."""
    if minor(installed) == minor(pinned):
        return ROOT / "docs"
    return ROOT / "build" / f"coverage-{minor(installed)}"


def pinned_transformers() -> str:
    """The version that `constraints.txt` names."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("transformers=="))


FOLDER = place(version("transformers"), pinned_transformers())
PAGE, DATA = FOLDER / "coverage.md", FOLDER / "coverage.json"
_QUIET = ("", "pass")
MEDIAN_LINES, MEDIAN_CLASS = 150, 30
TEXT = """\
# Coverage

Made by `make coverage`; do not edit.

Every model type for which transformers has a causal language model ({total}), from `config.json` alone: the class's
default config, no downloads. Each row is the whole way, with zero edits: `trtllm-port new` writes the port; `verify
--random-weights` proves it in float32 and in bfloat16, on {prefill} tokens at once and {steps} more one by one through
the KV cache, teacher-forced, at a tiny size that no trace has seen; a float16 engine is compiled ahead of time for
compute capability {capability}. What a config class lacks to describe a decoder is set by
`tests/coverage/model_types.toml`, with reasons.

Versions: {versions}. {seconds} of processor time altogether, on the machine that measured.

| family | types | pass | goal |{headers}
|---|---:|---:|---:|{rule}
{families}

| readability, dense and MoE types | median | goal |
|---|---:|---:|
{medians}

{statuses}

A verification that passes may warn, which a clean port should not. {warned}; which taps and gates, and by what numbers,
stands in the type's row, of all three data types.

## Beyond the table

Made by `make coverage-beyond`, of the types that pass. Versions: {beyond_versions}; {beyond_seconds} of processor time.

A port that passes is right as far as anybody can see, so that a verdict against it would be a false alarm. What passes
is therefore verified in float16, too: {float16}.

What passes is also ported with another combination of options, drawn at random (switches turned over, other heads,
windows, activations, rotary scalings), and checked by `new`: {combinations}.

A port claims to follow what it reads of the config. Other configs of its class are drawn at random, and each has to
come out as Hugging Face computes it, or to be refused by a key's name: {others}.

{tables}"""
MEANINGS = {
    "passes": "all of the above",
    "no engine": "verified, and the compiler refuses the network in float16",
    "differs": "a port was written and differs from Hugging Face, or cannot be told from it",
    "incomplete": "a port was written with classes to fill in by hand, which are listed",
    "refused": "the package says why it writes no port",
    NOT_MEASURED: "not in the data yet: `make coverage`",
    "defect": "an error that nobody foresaw, or a limit of time or memory; to be repaired",
}


def load() -> dict[str, Any]:
    """The committed data; empty if there is none."""
    empty: dict[str, Any] = {part: {"versions": {}, "rows": []} for part in PARTS}
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else empty


def merge(part: str, rows: Sequence[Row], versions: dict[str, str]) -> dict[str, Any]:
    """The committed data with these rows in place of the old ones of a part."""
    data = load()
    known = {row["model_type"]: row for row in data[part]["rows"]}
    known |= {row.model_type: row.to_dict() for row in rows}
    return {**data, part: {"versions": versions, "rows": [known[name] for name in sorted(known)]}}


def write(data: dict[str, Any]) -> None:
    """Write data, a row a line, and page."""
    parts = []
    for part, content in data.items():
        lines = ",\n    ".join(json.dumps(row) for row in content["rows"])
        parts.append(f'"{part}": {{"versions": {json.dumps(content["versions"])}, "rows": [\n    {lines}\n  ]}}')
    FOLDER.mkdir(parents=True, exist_ok=True)
    DATA.write_text("{\n  " + ",\n  ".join(parts) + "\n}\n", encoding="utf-8")
    PAGE.write_text(render(data), encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """The page."""
    from coverage_measure import CAPABILITY, PREFILL, STEPS

    known = {row["model_type"]: TableRow(**row) for row in data[TABLE]["rows"]}
    beyond = [BeyondRow(**row) for row in data[BEYOND]["rows"]]
    warned = {row.model_type: row.warnings for row in beyond}
    rows = [known.get(name) or _not_measured(name) for name in model_types()]
    short = [status for status in (*STATUSES, NOT_MEASURED) if status != PASSES]
    return TEXT.format(
        total=len(rows),
        prefill=PREFILL,
        steps=STEPS,
        capability=CAPABILITY,
        float16=_float16(beyond),
        combinations=_combinations(beyond),
        others=_others(beyond),
        versions=_versions(data[TABLE]),
        seconds=_minutes(rows),
        beyond_versions=_versions(data[BEYOND]),
        beyond_seconds=_minutes(beyond),
        headers="".join(f" {status} |" for status in short),
        rule="---:|" * len(short),
        families="\n".join(_family_lines(rows, short)),
        medians="\n".join(_median_lines(rows)),
        statuses="\n".join(f"- **{status}**: {meaning}" for status, meaning in MEANINGS.items()),
        tables="\n".join(_family_table(family, rows, warned) for family in _families()),
        warned=_warned([*(row.warnings for row in rows), *warned.values()]),
    )


def _versions(part: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in part["versions"].items())


def _minutes(rows: Sequence[Row]) -> str:
    return f"{sum(row.seconds for row in rows) / 60:.0f} minutes"


def _warned(rows: Sequence[dict[str, Any]]) -> str:
    some, verified = counted(rows)
    return f"Of {verified} verifications {some or 'none'} do" if verified else "How many do is not measured yet"


def _float16(rows: list[BeyondRow]) -> str:
    """How the verdicts in float16 fall out."""
    verdicts = Counter(row.float16 for row in rows if row.float16)
    others = {row.float16: [r.model_type for r in rows if r.float16 == row.float16] for row in rows}
    named = [
        f"{len(types)} {verdict} ({', '.join(types)})" for verdict, types in others.items() if verdict not in _QUIET
    ]
    return ", ".join([f"{verdicts['pass']} of {verdicts.total()} pass", *named])


def _combinations(rows: list[BeyondRow]) -> str:
    """How the ports with other options fall out; what is not right is told."""
    tried = [row for row in rows if row.combination]
    short = [row for row in tried if row.combination != PASSES]
    told = [f"\n- {row.model_type} with {_code(row.options)}: {_escape(row.combination)}" for row in short]
    invalid = sum(row.invalid for row in rows)
    again = f" ({invalid} with which Hugging Face's own model does not run were drawn again)" if invalid else ""
    return f"{len(tried) - len(short)} of {len(tried)} pass{again}" + (
        ", the others are:\n" + "".join(told) if told else ""
    )


def _others(rows: list[BeyondRow]) -> str:
    """What the ports make of other configs."""
    counts = sum((Counter(row.others) for row in rows), Counter[str]())
    if not counts:
        return "not measured yet"
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    differ = [f"\n- {row.model_type}: {_escape(each)}" for row in rows for each in row.others_differ]
    return f"of {counts.total()} {told}" + (", these differ:\n" + "".join(differ) if differ else "")


def _code(options: dict[str, Any] | None) -> str:
    return f"`{json.dumps(options)}`"


def _not_measured(model_type: str) -> TableRow:
    return TableRow(model_type=model_type, family=family_of(model_type), status=NOT_MEASURED)


def _families() -> list[str]:
    return [DENSE, *table()["families"]]


def _family_lines(rows: list[TableRow], short: list[str]) -> list[str]:
    targets, sizes = table()["targets"], sizes_of_families()
    lines = []
    for family in _families():
        counts = [sum(row.status == status for row in rows if row.family == family) for status in (PASSES, *short)]
        cells = [family, sizes[family], counts[0], f"≥ {targets[family]}", *(count or "" for count in counts[1:])]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    totals = [sum(row.status == status for row in rows) for status in (PASSES, *short)]
    cells = ["all", len(rows), totals[0], "", *(count or "" for count in totals[1:])]
    return [*lines, f"| {' | '.join(str(cell) for cell in cells)} |"]


def _median_lines(rows: list[TableRow]) -> list[str]:
    counted = [row for row in rows if row.family == DENSE and row.status in (PASSES, NO_ENGINE)]
    lines = [row.lines for row in counted if row.lines is not None]
    classes = [row.longest_class for row in counted if row.longest_class is not None]
    return [
        f"| lines of `model.py` | {statistics.median(lines or [0]):.0f} | ≤ {MEDIAN_LINES} |",
        f"| lines of its longest class | {statistics.median(classes or [0]):.0f} | ≤ {MEDIAN_CLASS} |",
    ]


def _family_table(family: str, rows: list[TableRow], beyond: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"## {family[0].upper()}{family[1:]}\n",
        "`ratio` is the largest error of any tensor in bfloat16, in units of Hugging Face's own error in bfloat16.\n",
        "| model type | status | lines | longest class | ratio | warnings | seconds | why it falls short |",
        "|---|---|---:|---:|---:|---|---:|---|",
    ]
    for row in (row for row in rows if row.family == family):
        reason = f"{row.stage}: {_escape(row.reason)}" if row.reason else ""
        warned = _escape(told({**row.warnings, **beyond.get(row.model_type, {})}))
        cells = [row.model_type, row.status, row.lines, row.longest_class, row.ratio, warned, row.seconds, reason]
        lines.append(f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
