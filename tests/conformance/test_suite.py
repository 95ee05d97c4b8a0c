"""ONNX's node tests against the reference executor: a sample at every run, all of them in the slow stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import onnx_suite
import pytest
from onnx_exceptions import MISTRANSLATED, named_exceptions
from onnx_suite import DECODER_TYPES, Outcome

# ONNX modules that together reach most layer types, in about two seconds.
SAMPLE = (
    "attention",
    "clip",
    "cumsum",
    "einsum",
    "gather",
    "gathernd",
    "gelu",
    "groupnormalization",
    "loop",
    "quantizelinear",
    "reducemax",
    "rmsnormalization",
    "rnn",
    "rotaryembedding",
    "scatternd",
    "slice",
    "softmax",
    "tensorscatter",
    "topk",
    "where",
)


def _expected(outcome: Outcome) -> set[str]:
    if outcome.case in named_exceptions():
        return {"wrong" if outcome.case in MISTRANSLATED else "refused"}
    if outcome.layer_types <= DECODER_TYPES:
        return {"matched", "not parsed"}
    return {"matched", "refused"}


@cache
def _outcomes() -> list[Outcome]:
    return [onnx_suite.run(case) for case in onnx_suite.all_cases()]


@pytest.mark.parametrize("module", SAMPLE)
def test_sample(module: str) -> None:
    outcomes = [onnx_suite.run(case) for case in onnx_suite.cases_of(module)]
    assert any(outcome.status == "matched" for outcome in outcomes)
    assert not [outcome for outcome in outcomes if outcome.status not in _expected(outcome)]


@pytest.mark.slow
def test_all_of_the_suite() -> None:
    outcomes = _outcomes()
    assert named_exceptions().keys() <= {outcome.case for outcome in outcomes}
    assert not [outcome for outcome in outcomes if outcome.status not in _expected(outcome)]
    needed = [o for o in outcomes if o.status == "matched" and o.layer_types <= DECODER_TYPES]
    assert len(needed) >= 850


@pytest.mark.slow
def test_refusals_name_a_layer_of_the_network() -> None:
    refused = [outcome for outcome in _outcomes() if outcome.status == "refused"]
    assert refused
    for outcome in refused:
        assert any(f"does not evaluate {kind} (layer " in outcome.detail for kind in outcome.layer_types), outcome


@pytest.mark.slow
def test_the_page_is_what_the_suite_says(import_file: Callable[[Path], ModuleType]) -> None:
    report = import_file(Path(__file__).with_name("report.py"))
    assert report.PAGE.read_text(encoding="utf-8") == report.render(_outcomes())
