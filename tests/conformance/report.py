"""Regenerates docs/conformance.md: `python tests/conformance/report.py`."""

from __future__ import annotations

import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the folder is no package

from onnx_exceptions import MISTRANSLATED, named_exceptions
from onnx_suite import DECODER_TYPES, Outcome, all_cases, run

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
TEXT = """\
# Conformance of the reference executor

Made by `python tests/conformance/report.py`; do not edit.

The reference executor runs TensorRT networks without TensorRT. This page says how far it can be trusted, measured by a
suite that is not ours: the node tests of ONNX, each a small model with inputs, expected outputs and a tolerance.
NVIDIA's own ONNX parser turns a model into a strongly typed TensorRT network; the executor runs that network, and the
results are compared with ONNX's. Every tensor on the way is compared with the dtype and shape that TensorRT infers.

Versions: {versions}.

| node tests of ONNX | {total} |
|---|---:|
| parsed by NVIDIA's parser | {parsed} |
| matched | {matched} |
| refused by the name of a layer | {refused} |
| mistranslated by the parser, listed below | {mistranslated} |
| wrong | {wrong} |

Of the {parsed} networks, {needed} consist of layer types that a decoder can need. {needed_matched} of them match; the
other {needed_exceptions} are the exceptions listed below. The remaining {other} contain other layers;
{other_matched} of those match as well and {other_refused} are refused.

## Layer types

In how many networks each type occurs, and what became of them. "Refused" may be due to another layer of the network.

| layer type | networks | matched | refused | exceptions |
|---|---:|---:|---:|---:|
{rows}

## Tolerance

ONNX's own, case by case (mostly a relative 1e-3 and an absolute 1e-7), with one widening: in float16 and bfloat16 at
least two units in the last place. A relative 1e-3 is a seventh of a unit in bfloat16, so a result that was rounded at
other places than NumPy rounds could never meet it. TensorRT has no float64: the parser reads it as float32, and so are
inputs and expected outputs.

## Exceptions

Each reason is proven by a test (`tests/conformance/test_exceptions.py`). Where the parser ignores a part of the node,
the model without that part gives the same network, layer by layer. Where it misreads a default, spelling the default
out gives another network, and that one matches. Where TensorRT's compiler rejects the network, it is asked to compile
it.

| case | reason |
|---|---|
{exceptions}
"""


def render(outcomes: list[Outcome]) -> str:
    """The page for the outcomes of all cases."""
    parsed = [outcome for outcome in outcomes if outcome.status != "not parsed"]
    excepted = named_exceptions()
    needed = [outcome for outcome in parsed if outcome.layer_types <= DECODER_TYPES]
    other = [outcome for outcome in parsed if not outcome.layer_types <= DECODER_TYPES]
    bad = [outcome for outcome in parsed if outcome.status in ("wrong", "failed") and outcome.case not in MISTRANSLATED]
    names = ("onnx", "tensorrt-rtx-cu13", "torch")
    return TEXT.format(
        versions=", ".join(f"{name} {version(name).split('+')[0]}" for name in names),
        total=len(outcomes),
        parsed=len(parsed),
        matched=_count(parsed, "matched"),
        refused=_count(parsed, "refused"),
        mistranslated=sum(outcome.case in MISTRANSLATED for outcome in parsed),
        wrong=len(bad),
        needed=len(needed),
        needed_matched=_count(needed, "matched"),
        needed_exceptions=sum(outcome.case in excepted for outcome in needed),
        other=len(other),
        other_matched=_count(other, "matched"),
        other_refused=_count(other, "refused"),
        rows="\n".join(_rows(parsed, excepted)),
        exceptions="\n".join(f"| {name} | {reason} |" for name, reason in sorted(excepted.items())),
    )


def _count(outcomes: list[Outcome], status: str) -> int:
    return sum(outcome.status == status for outcome in outcomes)


def _rows(parsed: list[Outcome], excepted: dict[str, str]) -> list[str]:
    total = Counter(kind for outcome in parsed for kind in outcome.layer_types)
    rows = []
    for kind, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        inside = [outcome for outcome in parsed if kind in outcome.layer_types]
        exceptions = [outcome for outcome in inside if outcome.case in excepted]
        refused = _count(inside, "refused") - _count(exceptions, "refused")
        rows.append(f"| {kind} | {count} | {_count(inside, 'matched')} | {refused} | {len(exceptions)} |")
    return rows


def main() -> None:
    """Run the suite and write the page."""
    outcomes = [run(case) for case in all_cases()]
    PAGE.write_text(render(outcomes), encoding="utf-8")
    print(f"{PAGE}: {_count(outcomes, 'matched')} matched")


if __name__ == "__main__":
    main()
