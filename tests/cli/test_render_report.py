"""The terminal tells gates and taps by their verdicts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trtllm_port.cli.terminal.render_report import _gates, _taps
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict, counted
from trtllm_port.verification.report.report import TapReport


def tap(name: str, verdict: Verdict) -> TapReport:
    empty: dict[str, Any] = {"metrics": None, "logic": None, "own": None, "logic_own": None, "positions": ()}
    return TapReport(name=name, class_name="Linear", verdict=verdict, note="", **empty)


def report(gates: list[Verdict], taps: list[TapReport]) -> Any:
    made = [Gate(name="a", phase="logic", verdict=verdict, reason="why") for verdict in gates]
    counts = {"gates": counted(gates), "taps": counted([each.verdict for each in taps])}
    return SimpleNamespace(gates=made, taps=taps, divergence=None, counts=counts)


def test_a_skipped_gate_is_no_gate_that_does_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    _gates(report([Verdict.PASS] * 31 + [Verdict.SKIPPED] * 7, []))
    assert capsys.readouterr().out.strip() == "38 gates: 31 pass, 7 skipped"


def test_what_does_not_pass_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _gates(report([Verdict.PASS, Verdict.WARN, Verdict.SKIPPED], []))
    said = capsys.readouterr().out
    assert "3 gates: 1 pass, 1 skipped, 1 warn" in said
    assert "why" in said


def test_inputs_are_counted_as_taps_though_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    taps = [tap("a:input", Verdict.WARN), tap("a", Verdict.WARN), tap("b", Verdict.PASS)]
    _taps(report([], taps))
    assert "3 taps: 1 pass, 2 warn" in capsys.readouterr().out
    _taps(report([], taps[2:]))
    assert "1 taps: all pass; the largest noise ratios" in capsys.readouterr().out
