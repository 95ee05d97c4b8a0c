"""Bugs in quantized weights, as published models and `--quant-algo` have them: caught, placed, explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.quantized_models import GROUP, quantize
from trtllm_port.layers.quantization import ROUNDED, QuantizeOptions
from trtllm_port.verification.prove import Proof, prove
from trtllm_port.verification.prove.catalogue import CATALOGUE
from trtllm_port.verification.prove.quantized_bugs import quantized_bug
from trtllm_port.verification.stimulus.settings import DiffSettings

ALL = frozenset(bug.id for bug in CATALOGUE if bug.kind == "quantized")
#: method → a few bugs that have a place there, and one that has none
FEW = {
    "gptq": (("nibbles", "zero_point.one", "permutation.inverse", "scale.layer"), "global_scale.ignored"),
    "awq": (("packing", "zero_point.ignored", "scale.group"), "permutation.ignored"),
    "fp8": (("codes.int8", "scale.transposed"), "nibbles"),
    "nvfp4": (("global_scale.ignored", "global_scale.inverse"), "offset"),
    "awq_lite": (("pre_scale.ignored", "pre_scale.divided"), "zero_point.one"),
    "W4A16": (("offset", "group_size", "excluded"), "codes.int8"),
    "W8A16": (("scale.row", "scale.inverse"), "scale.group"),
}
#: How many of the catalogue have a place there.
PLACES = {"gptq": 20, "awq": 18, "fp8": 11, "nvfp4": 12, "awq_lite": 16, "W4A16": 14, "W8A16": 8}


def proof_of(place: Path, method: str, ids: frozenset[str], dtype: str = "float32") -> Proof:
    model, options = place / "model", None
    if method in ROUNDED:
        options = QuantizeOptions(algorithm=method, group_size=GROUP)
    else:
        model = place / method
        quantize(place / "model", model, method)
    chosen = [bug for bug in CATALOGUE if bug.id in ids]
    assert len(chosen) == len(ids)
    settings = DiffSettings(tokens=96, quantize=options)
    return prove(model, workspace=place, dtype=dtype, settings=settings, catalogue=chosen)


@pytest.mark.parametrize("method", FEW)
def test_bugs_in_quantized_weights_are_caught_placed_and_explained(place: Path, method: str) -> None:
    names, nowhere = FEW[method]
    proof = proof_of(place, method, frozenset(f"quantized.{name}" for name in (*names, nowhere)))
    number = len(names)
    assert proof.summary == (
        f"{number} of {number} bugs caught, {number} at the right module, {number} with the right cause first"
    )
    (unplaced,) = (outcome for outcome in proof.outcomes if not outcome.exercised)
    assert (unplaced.bug, unplaced.status) == (f"quantized.{nowhere}", "no place")
    assert proof.quantization.startswith({"nvfp4": "modelopt", "awq_lite": "modelopt"}.get(method, method))


def test_other_bugs_meet_the_quantized_port(place: Path) -> None:
    """Those of the source and of plain weights are found as ever; a plain weight's bug has no place in codes."""
    bugs = frozenset({"attention.scale", "table.exchanged", "weights.transposed"})
    found = {outcome.bug: outcome for outcome in proof_of(place, "awq", bugs).outcomes}
    assert found["attention.scale"].explained
    assert found["table.exchanged"].explained
    assert found["weights.transposed"].status == "no place"


def test_scales_that_no_bug_of_the_catalogue_has_are_found_wrong(place: Path) -> None:
    bug = quantized_bug("reversed", "rows of scales reversed", lambda grid: replace(grid, scale=grid.scale.flip(0)))
    settings = DiffSettings(tokens=96, quantize=QuantizeOptions(algorithm="W4A16", group_size=GROUP))
    (outcome,) = prove(place / "model", workspace=place, dtype="float32", settings=settings, catalogue=[bug]).outcomes
    assert outcome.placed
    assert outcome.cause == "quantized.scale"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", FEW)
def test_all_bugs_in_quantized_weights(place: Path, method: str, dtype: str) -> None:
    proof = proof_of(place, method, ALL, dtype)
    already = dtype == "bfloat16" and method in ROUNDED  # their scales are rounded to the checkpoint's type
    assert len(proof.exercised) == PLACES[method] - already
    for outcome in proof.exercised:
        assert outcome.caught, outcome.bug
        assert outcome.placed, outcome.bug
        assert outcome.explained, outcome.bug
