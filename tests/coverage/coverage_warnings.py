"""What a verification that passes warns of: a clean port should make none, and a row says which it made and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trtllm_port.verification.judge.thresholds import TAP_THRESHOLDS
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.taps.layer_groups import group_across_layers

if TYPE_CHECKING:
    from trtllm_port.verification import Report
    from trtllm_port.verification.report.report import TapReport

NAMED = 2
SUMMARIES = ("taps.error", "taps.own")  # gates that say again what taps say


def warnings_of(report: Report) -> dict[str, Any]:
    """How many taps and gates warn, and why: `taps`, `gates` and `why` ("" where none does)."""
    taps = [tap for tap in report.taps if tap.verdict is Verdict.WARN]
    gates = [gate for gate in report.gates if gate.verdict is Verdict.WARN and gate.name not in SUMMARIES]
    alike = [[taps[index] for index in group] for group in group_across_layers([tap.name for tap in taps])]
    reasons = [f"{gate.name} ({gate.phase}) {gate.value:.3g}" if gate.value else gate.name for gate in gates]
    reasons += [f"`{group[0].name}`{_times(len(group))} {_numbers(group)}" for group in alike]
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return {"taps": len(taps), "gates": len(gates), "why": "; ".join(reasons[:NAMED]) + more}


def told(warnings: Mapping[str, Mapping[str, Any]]) -> str:
    """The warnings of a row, of the data types that have any; "none" where none has, "" where nothing was measured."""
    if not warnings:
        return ""
    some = [f"{dtype}: {found['taps']} taps, {found['gates']} gates: {found['why']}" for dtype, found in _any(warnings)]
    return "; ".join(some) or "none"


def counted(rows: Iterable[Mapping[str, Mapping[str, Any]]]) -> tuple[int, int]:
    """How many verifications warn, and of how many."""
    known = [warnings for warnings in rows if warnings]
    return sum(len(list(_any(warnings))) for warnings in known), sum(map(len, known))


def _any(warnings: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((dtype, found) for dtype, found in warnings.items() if found["taps"] or found["gates"])


def _times(count: int) -> str:
    return f" in {count} layers" if count > 1 else ""


def _numbers(taps: list[TapReport]) -> str:
    """The largest number beyond what passes, of any of the taps in any run; or what they say of themselves."""
    limits = {each.metric: each for table in TAP_THRESHOLDS.values() for each in table}
    found: dict[str, float] = {}
    for tap in taps:
        for values in (tap.metrics, tap.own, tap.logic, tap.logic_own):
            for name, limit in limits.items():
                value = (values or {}).get(name)
                if value is not None and value > limit.passes:
                    found[name] = max(value, found.get(name, 0.0))
    return ", ".join(f"{name} {value:.3g}" for name, value in found.items()) or taps[0].note
