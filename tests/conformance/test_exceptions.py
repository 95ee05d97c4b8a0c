"""Every named exception of the suite is proven: it is not the executor that is wrong."""

from __future__ import annotations

from dataclasses import replace

import onnx_suite
import pytest
from onnx.backend.test.case.test_case import TestCase
from onnx_exceptions import MISTRANSLATED, RANDOM, REJECTED_BY_TENSORRT, Ignored, WrongDefault, spelled_out, without

MODULES = ("attention", "gru", "lstm", "rnn", "spacetodepth", "trilu")


@pytest.fixture(scope="module")
def cases() -> dict[str, TestCase]:
    return {case.name: case for module in MODULES for case in onnx_suite.cases_of(module)}


@pytest.mark.parametrize("name", [name for name, entry in MISTRANSLATED.items() if isinstance(entry, Ignored)])
def test_what_the_parser_ignores_changes_nothing_in_the_network(name: str, cases: dict[str, TestCase]) -> None:
    entry = MISTRANSLATED[name]
    assert isinstance(entry, Ignored)
    whole = onnx_suite.parse(cases[name].model)
    without_it = onnx_suite.parse(without(cases[name], entry.names))
    assert whole is not None
    assert without_it is not None
    assert whole.layers == without_it.layers
    for constant in whole.constants:
        assert whole.constants[constant].value.equal(without_it.constants[constant].value)


@pytest.mark.parametrize("name", [name for name, entry in MISTRANSLATED.items() if isinstance(entry, WrongDefault)])
def test_a_default_spelled_out_makes_another_network_which_matches(name: str, cases: dict[str, TestCase]) -> None:
    entry = MISTRANSLATED[name]
    assert isinstance(entry, WrongDefault)
    explicit = replace(cases[name], model=spelled_out(cases[name], entry.name, entry.default))
    assert onnx_suite.parse(explicit.model) != onnx_suite.parse(cases[name].model)
    assert onnx_suite.run(explicit).status == "matched"


@pytest.mark.slow
def test_tensorrt_rejects_what_is_refused_for_that_reason() -> None:
    rejected = [case for case in onnx_suite.all_cases() if case.name in REJECTED_BY_TENSORRT]
    assert len(rejected) == len(REJECTED_BY_TENSORRT)
    assert not [case.name for case in rejected if onnx_suite.compiles(case.model)]


@pytest.mark.slow
def test_random_cases_are_refused_as_random() -> None:
    outcomes = [onnx_suite.run(case) for case in onnx_suite.all_cases() if case.name in RANDOM]
    assert len(outcomes) == len(RANDOM)
    assert all("RANDOM" in outcome.detail for outcome in outcomes)
