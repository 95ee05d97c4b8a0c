"""Verdicts and their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of one check. A report as a whole is `pass`, `fail` or `cannot_tell` only."""

    PASS = "pass"
    SKIPPED = "skipped"
    WARN = "warn"
    CANNOT_TELL = "cannot_tell"
    FAIL = "fail"


_SEVERITY = {verdict: severity for severity, verdict in enumerate(Verdict)}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe verdict; `pass` for none."""
    return max(verdicts, key=_SEVERITY.__getitem__, default=Verdict.PASS)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of a whole report: warnings pass, nothing at all cannot be told."""
    known = [verdict for verdict in verdicts if verdict is not Verdict.SKIPPED]
    if not known:
        return Verdict.CANNOT_TELL
    severest = worst(known)
    return Verdict.PASS if severest is Verdict.WARN else severest


def counted(verdicts: Iterable[str]) -> dict[str, int]:
    """Return how many there are of every verdict, none left out."""
    known = list(verdicts)
    return {verdict.value: known.count(verdict.value) for verdict in Verdict}


def in_words(counts: Mapping[str, int]) -> str:
    """Say the counts of `counted` that are not zero: "30 pass, 7 skipped, 1 fail", or "all pass"."""
    told = {verdict.replace("_", " "): count for verdict, count in counts.items() if count}
    if len(told) == 1:
        return f"all {next(iter(told))}"
    return ", ".join(f"{count} {verdict}" for verdict, count in told.items()) or "none"


def exit_code(verdict: Verdict) -> int:
    """Return 0 for a proven port, 1 for one that differs or could not be proven."""
    return 0 if verdict is Verdict.PASS else 1
