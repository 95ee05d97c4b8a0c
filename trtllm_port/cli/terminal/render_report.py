"""How `diff-layers` and `verify` show a report: what is wrong and where on top, then what supports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtllm_port.cli.terminal import console
from trtllm_port.cli.terminal.render_loss import render_loss
from trtllm_port.cli.terminal.render_repair import render_repair
from trtllm_port.cli.terminal.render_summaries import render_rouge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtllm_port.verification import Report
    from trtllm_port.verification.report.report import Divergence

SHOWN_TAPS, SHOWN_RATIOS, SHOWN_DIVERGENCES = 12, 5, 7
NOT_PASSING = ("fail", "cannot_tell", "warn")


def render_report(report: Report) -> None:
    """The verdict and the first divergence on top, then the stages, taps and gates."""
    _verdict(report)
    _divergence(report)
    _next_steps(report)
    _stages(report)
    _taps(report)
    _gates(report)
    _footer(report)


def _verdict(report: Report) -> None:
    console.line(f"{report.verdict.value.replace('_', ' ').upper()}: {report.summary}")
    subject = report.subject
    weights = f"random weights (seed {subject.seed})" if subject.random_weights else "the checkpoint's weights"
    console.line(f"{subject.architecture}, port `{subject.port}` in {subject.dtype}, {weights}; {report.executor}")


def _divergence(report: Report) -> None:
    if report.divergence is not None:
        found = report.divergence
        console.line()
        console.line(f"first divergence: {found.module} ({found.class_name}), {found.phase} phase")
        console.line(f"  {found.order} taps before it pass; its input is at {_number(found.inherited)} times the floor")
    for cause in report.causes:
        console.line(f"  {cause.status} cause: {cause.cause}: {cause.evidence}")
        console.line(f"  look at {cause.place}")
    _further_divergences(report.divergences)
    for excerpt in report.excerpts:
        whose = "port" if excerpt.side == "port" else "Hugging Face"
        console.line(f"  {whose}, {excerpt.path}" + (f": {excerpt.note}" if excerpt.note else ""))
        for line in excerpt.marked:
            console.line(f"    {line:>4} │ {excerpt.lines[line - excerpt.first_line].strip()}")


def _further_divergences(divergences: Sequence[Divergence]) -> None:
    from trtllm_port.verification.taps.layer_groups import group_across_layers, name_a_few

    first, *others = group_across_layers([found.module for found in divergences]) or [[0]]
    if first[1:]:
        console.line(f"  the same in {name_a_few([divergences[i].module for i in first[1:]])}")
    for group in others[:SHOWN_DIVERGENCES]:
        found = divergences[group[0]]
        own = f"{_number(found.ratio)} times the floor on Hugging Face's input, {_number(found.end_to_end)} end to end"
        console.line(
            f"wrong by itself, too: {name_a_few([divergences[i].module for i in group])} ({found.class_name}): {own}"
        )
        for cause in found.causes[:1]:
            console.line(f"  {cause.status} cause: {cause.cause}: {cause.evidence}")
    if len(others) > SHOWN_DIVERGENCES:
        console.line(f"… and {len(others) - SHOWN_DIVERGENCES} more")


def _next_steps(report: Report) -> None:
    if report.next_steps:
        console.line()
        console.line("next:")
    for number, step in enumerate(report.next_steps, 1):
        console.line(f"  {number}. {step}")


def _stages(report: Report) -> None:
    if not report.stages:
        return
    rows = [[stage.name, _words(stage.verdict), f"{stage.seconds:.1f}", stage.detail] for stage in report.stages]
    console.line()
    console.table(["stage", "verdict", "seconds", "what happened"], rows)
    if report.rouge is not None:
        console.line(f"summaries: {_words(report.rouge['verdict'])}: {report.rouge['reason']}")
        render_rouge(report.rouge["rouge"])
    if report.repair is not None:
        render_repair(report.repair)
    if report.loss is not None:
        render_loss(report.loss)


def _taps(report: Report) -> None:
    from trtllm_port.verification.judge.verdict import in_words

    if not report.taps:
        return
    outputs = [tap for tap in report.taps if not tap.name.endswith(":input") or tap.verdict == "fail"]
    wrong = [tap for tap in outputs if tap.verdict in NOT_PASSING]
    chosen = wrong or sorted(outputs, key=lambda tap: -((tap.metrics or {}).get("ratio") or 0.0))[:SHOWN_RATIOS]
    what = "those that do not pass" if wrong else "the largest noise ratios"
    title = f"{len(report.taps)} taps: {in_words(report.counts['taps'])}; {what}:"
    rows = []
    for tap in chosen[:SHOWN_TAPS]:
        numbers = [(tap.metrics or {}).get(name) for name in ("rel_l2", "floor", "ratio")]
        numbers += [(values or {}).get("ratio") for values in (tap.own, tap.logic, tap.logic_own)]
        rows.append([tap.name, tap.verdict.value, *map(_number, numbers), tap.note])
    console.line()
    columns = ["tap", "verdict", "rel L2", "floor", "r", "r own", "r float32", "r own float32", "note"]
    console.table(columns, rows, title=title)
    if len(chosen) > SHOWN_TAPS:
        console.line(f"… and {len(chosen) - SHOWN_TAPS} more")


def _gates(report: Report) -> None:
    from trtllm_port.verification.judge.verdict import in_words

    wrong = [gate for gate in report.gates if gate.verdict in NOT_PASSING]
    console.line()
    console.line(f"{len(report.gates)} gates: {in_words(report.counts['gates'])}")
    if report.divergence is not None:  # one wrong module fails most of them: their names are enough
        console.line(", ".join(f"{gate.name} ({gate.phase})" for gate in wrong))
    elif wrong:
        rows = [
            [gate.name, gate.phase, _words(gate.verdict), _number(gate.value), _number(gate.threshold), gate.reason]
            for gate in wrong
        ]
        console.table(["gate", "phase", "verdict", "value", "passes up to", "why"], rows)


def _footer(report: Report) -> None:
    for item in report.not_exercised:
        console.line(f"NOT EXERCISED: {item.what}: {item.reason}")
    console.line(f"{report.seconds:.1f} s")
    if report.report_dir is not None:
        console.line(f"wrote {report.report_dir / 'report.html'}, report.json and junit.xml")


def _words(verdict: str) -> str:
    return verdict.replace("_", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
