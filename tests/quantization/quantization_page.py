"""`docs/quantization.json` and the page made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantization_cells import ANSWER, CAPABILITIES, DTYPE, EXACT, TOKENS, Cell, Engine
from quantization_formats import ARCHITECTURES, BLOCK, FORMATS, GROUP
from quantization_packers import PLAINLY

ROOT = Path(__file__).parents[2]
PAGE, DATA = ROOT / "docs" / "quantization.md", ROOT / "docs" / "quantization.json"
NOT_MEASURED, NO_SUCH = "not measured", "–"
MORE = 1.05
MUCH = f"the engine's weights take more than {MORE} times the checkpoint's"
WEIGHT = re.compile(r"`[^`]*` is(?= \w+, which compute capability)")
TEXT = """\
# Quantization

Made by `make quantization`; do not edit.

What becomes of quantized weights, format by format, on the whole way: {architectures}, each at a tiny size with
seeded random weights. `trtllm-port new` writes the port, from the class's default config; a checkpoint is written as
the format has it; and then

- **read**: every weight is read, and is what the packer says that its tensors stand for, to the bit;
- **verified**: `verify` in {dtype}, Hugging Face with the same weights beside the port with the codes, on {tokens}
  tokens and {answer} greedy ones; the number is the largest noise ratio of any module, 1 being Hugging Face's own
  error;
- **KL**: the mean divergence from the random original, in nats, on 4096 random tokens. Nothing calibrated the weights:
  these numbers compare formats, not models. Experts are given weights as large as others', which those of
  `--random-weights` are not;
- **{capability_list}**: an engine of TensorRT for RTX, compiled ahead of time for that compute capability, and none
  has been executed. The number is the bytes of the engine's weights over those of the checkpoint, embeddings and all:
  1 means that the compiler kept the codes as narrow as they are. *before* says that a kernel of its own writes some
  of them out in 16 bits at every step, *in kernel* that they are dequantized where they are multiplied.

`W4A16` (groups of {group}), `W8A16`, `FP8` and `W8A8` are what `convert --quant-algo` makes of a plain model, the last
two with inputs calibrated on random tokens. The others are published formats, here in groups of {group} or blocks of
{block}: `ct` is compressed-tensors, and a format's own library packed the weights where it could. Of these, modelopt's
FP8 quantizes inputs, by the scale that it stores; neither side does what formats ask for that compute scales as they
run, and what goes into experts stays as it is. *As it is* says that the product is one of codes. Embeddings, heads and
routers are not quantized. gpt-oss, whose experts are stacked on disk, is published in mxfp4 alone. In gptq every
weight has its own order of columns, and in INT4 AWQ its own scales of the input, as experts have that see other tokens
each. *Some widened* says that a checkpoint holds some weights in 16 bits, for the reasons below.

{passes}

Versions: {versions}. Packed by {packers}.

{tables}
## What fell short

{problems}
"""


def load() -> dict[str, Any]:
    """The committed data; empty if there is none."""
    empty: dict[str, Any] = {"versions": {}, "cells": []}
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else empty


def merge(data: dict[str, Any], cells: Sequence[Cell], versions: dict[str, str]) -> dict[str, Any]:
    """The data with these cells in place of the old ones."""
    known = {cell.key: cell for cell in map(Cell.from_dict, data["cells"])} | {cell.key: cell for cell in cells}
    ordered = [
        known[key] for key in (f"{row}, {column}" for row in ARCHITECTURES for column in FORMATS) if key in known
    ]
    return {"versions": versions, "cells": [cell.to_dict() for cell in ordered]}


def write(data: dict[str, Any]) -> None:
    """Write the data and the page."""
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render(data), encoding="utf-8")


def passes(cell: Cell) -> bool:
    """Whether nothing of a cell fell short; a GPU that lacks a data type is no fault."""
    are_built = all(each.built or _lacks(each) for each in cell.engines.values())
    return not cell.problem and cell.verdict == "pass" and cell.read in ("", EXACT) and not cell.widened and are_built


def _lacks(engine: Engine) -> bool:
    return "does not have" in engine.reason


def render(data: dict[str, Any]) -> str:
    """The page."""
    cells = {cell.key: cell for cell in map(Cell.from_dict, data["cells"])}
    wanted = [f"{row}, {name}" for row in ARCHITECTURES for name, column in FORMATS.items() if column.exists(row)]
    measured = [cells[key] for key in wanted if key in cells]
    packers = sorted({cell.packed_by for cell in measured if cell.packed_by not in ("", PLAINLY)})
    return TEXT.format(
        architectures=", ".join(ARCHITECTURES),
        dtype=DTYPE,
        tokens=TOKENS,
        answer=ANSWER,
        capability_list=", ".join(CAPABILITIES),
        group=GROUP,
        block=BLOCK,
        passes=_passing(measured, len(wanted)),
        versions=", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        packers=", ".join([*packers, "and plain code"]),
        tables="\n".join(_table(row, cells) for row in ARCHITECTURES),
        problems=_problems(measured),
    )


def _passing(measured: Sequence[Cell], wanted: int) -> str:
    missing = wanted - len(measured)
    return (
        f"{sum(map(passes, measured))} of {len(measured)} cells pass: weights are read to the bit, verified, kept "
        f"quantized, and compiled.{f' {missing} more are not measured yet.' if missing else ''}"
        " A GPU that lacks a data type is no fault."
    )


def _table(architecture: str, cells: dict[str, Cell]) -> str:
    heads = ("format", "weights", "read", "verified", "KL", *CAPABILITIES)
    lines = [
        f"## {architecture}",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---:|---|---|---:|" + "---|" * len(CAPABILITIES),
    ]
    for name, column in FORMATS.items():
        cell = cells.get(f"{architecture}, {name}")
        if not column.exists(architecture):
            continue
        shown = [NOT_MEASURED, *[""] * (len(heads) - 2)] if cell is None else _shown(cell)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def _shown(cell: Cell) -> list[str]:
    kept = f"{cell.weights}" if not cell.widened else f"{cell.weights}, some widened"
    read = cell.read or NO_SUCH
    verified = f"{cell.verdict} {_ratio(cell.ratio)}" if cell.verdict else "no"
    return [kept, read, verified, _number(cell.kl), *(_engine(cell.engines.get(each)) for each in CAPABILITIES)]


def _engine(engine: Engine | None) -> str:
    if engine is None:
        return "no"
    if not engine.built:
        return "lacks the type" if _lacks(engine) else "refused"
    how = ", ".join(
        word
        for word, sign in (("as it is", "as it is"), ("in kernel", "in the kernel"), ("before", "of its own"))
        if _any(engine, sign)
    )
    wide = ", widened" if engine.narrow is False else ""
    return f"{_ratio(engine.times)} {how}".strip() + wide


def _any(engine: Engine, sign: str) -> bool:
    return any(sign in how for how in engine.how)


def _number(value: float | None) -> str:
    return NO_SUCH if value is None else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return NO_SUCH if value is None else f"{value:.2f}"


def _problems(cells: Sequence[Cell]) -> str:
    """Each reason once, with the cells that have it."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        found = [cell.problem] if cell.problem else []
        if cell.read not in ("", EXACT):
            found.append(f"weights are read with an error of {cell.read}")
        if cell.verdict not in ("", "pass"):
            found.append(f"verify: {'; '.join(cell.warnings)}")
        found += [f"verify passes, and warns: {text}" for text in cell.warnings if cell.verdict == "pass"]
        found += [f"not kept: {reason}" for reason in cell.widened]
        found += [f"{name}: {each.reason}" for name, each in cell.engines.items() if not each.built]
        found += [
            f"{name}: the engine holds wide weights" for name, each in cell.engines.items() if each.narrow is False
        ]
        found += [f"{name}: {MUCH}" for name, each in cell.engines.items() if (each.times or 0) > MORE]
        for text in dict.fromkeys(found):
            reasons.setdefault(_escaped(WEIGHT.sub("a weight is", text)), []).append(cell.key)
    return "\n".join(f"- {text}: {'; '.join(keys)}" for text, keys in reasons.items()) or "Nothing."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
