"""A row tells how many taps and gates of a type that passes warn, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import coverage_page
import pytest
from coverage_rows import TableRow
from coverage_warnings import counted, told, warnings_of

from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.report.report import TapReport


def tap(name: str, verdict: Verdict, **numbers: float) -> TapReport:
    own: dict[str, float | None] = {"ratio": 1.0, "token_ratio": 1.0, **numbers}
    empty: dict[str, Any] = {"metrics": None, "logic": None, "logic_own": None, "positions": ()}
    return TapReport(name=name, class_name="Linear", verdict=verdict, note="", own=own, **empty)


def gate(name: str, verdict: Verdict, value: float) -> Gate:
    return Gate(name=name, phase="logic", verdict=verdict, value=value, reason="")


def report(*parts: TapReport | Gate) -> Any:
    taps = [part for part in parts if isinstance(part, TapReport)]
    return SimpleNamespace(taps=taps, gates=[part for part in parts if isinstance(part, Gate)])


def test_taps_of_equal_layers_are_one_reason_with_their_largest_number() -> None:
    found = warnings_of(
        report(
            tap("model.layers.0.mlp", Verdict.WARN, ratio=1.6),
            tap("model.layers.1.mlp", Verdict.WARN, ratio=1.7),
            tap("model.norm", Verdict.PASS),
            gate("decode.error", Verdict.WARN, 1.57),
            gate("prefill.error", Verdict.SKIPPED, 9.0),
            gate("taps.own", Verdict.WARN, 1.7),
        )
    )
    assert found == {
        "taps": 2,
        "gates": 1,
        "why": "decode.error (logic) 1.57; `model.layers.0.mlp` in 2 layers ratio 1.7",
    }


def test_a_clean_row_says_none_and_one_that_was_not_measured_nothing() -> None:
    clean = {"float32": warnings_of(report(tap("model.norm", Verdict.PASS)))}
    warned = {"bfloat16": {"taps": 0, "gates": 1, "why": "decode.error (logic) 1.57"}}
    assert (told({}), told(clean)) == ("", "none")
    assert told({**clean, **warned}) == "bfloat16: 0 taps, 1 gates: decode.error (logic) 1.57"
    assert counted([{}, clean, {**clean, **warned}]) == (1, 3)


def test_the_page_names_them_in_the_row_of_the_type() -> None:
    warned = {"float16": {"taps": 0, "gates": 1, "why": "decode.error (logic) 1.57"}}
    row = TableRow(model_type="llama", family="dense and MoE", status="passes")
    table = coverage_page._family_table(row.family, [row], {"llama": warned})
    assert "| float16: 0 taps, 1 gates: decode.error (logic) 1.57 |" in table
    assert coverage_page._warned([warned]) == "Of 1 verifications 1 do"


def test_types_are_told_with_commas_or_blanks(
    monkeypatch: pytest.MonkeyPatch, import_file: Callable[[Path], ModuleType]
) -> None:
    run = import_file(Path(__file__).with_name("run.py"))
    monkeypatch.setattr("sys.argv", ["run.py", "--only", "llama,gpt2", "bloom"])
    assert run._chosen(run.TABLE, run._arguments().only) == ["llama", "gpt2", "bloom"]
    with pytest.raises(SystemExit):
        run._chosen(run.TABLE, ["llama,gtp2"])
