"""What to do after a report, in words: the step that a person who knows this tool would take next."""

from __future__ import annotations

from collections.abc import Iterator

from trtllm_port.verification.causes.locations import Excerpt
from trtllm_port.verification.judge.gates import LOSS
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.taps.layer_groups import name_a_few

NAMED = 3
WIDER = {"float16": ("bfloat16", "float32"), "bfloat16": ("float32",)}  # data types of more range
FINER = {"float16": ("float32",), "bfloat16": ("float32",)}


def next_steps(report: Report) -> tuple[str, ...]:
    """Return one to three sentences, the most useful first."""
    steps = {Verdict.FAIL: _after_failure, Verdict.CANNOT_TELL: _after_doubt}.get(report.verdict, _after_pass)
    return tuple(steps(report))


def _after_failure(report: Report) -> Iterator[str]:
    failed = [gate for gate in report.gates if gate.verdict is Verdict.FAIL]
    if failed and all(gate.phase == LOSS for gate in failed):
        yield from _after_loss(report)
        return
    places = [_place(excerpt) for excerpt in report.excerpts]
    confirmed = any(cause.status == "confirmed" for cause in report.causes[:1])
    if places and not confirmed:
        yield f"Compare {' with '.join(places)}"
    elif report.causes:
        yield f"Look at {report.causes[0].place}"
    if report.divergence is not None and all(cause.status == "unknown" for cause in report.causes):
        yield f"No known bug explains it; the first wrong value is `{_first_wrong(report)}`, what comes before is right"
    if report.divergence is None and report.first_divergence is None:
        yield f"Every module is right by itself: see what fails, {', '.join(gate.name for gate in failed[:NAMED])}"
    if report.commands:
        yield f"Change it, then repeat `{report.commands[-1]}`"


def _after_loss(report: Report) -> Iterator[str]:
    """Of a port that is right, and a model that is quantized too coarsely."""
    shares = None if report.loss is None else report.loss["shares"]
    costliest = "" if shares is None else name_a_few([f"`{part['name']}`" for part in shares["parts"][:NAMED]])
    most = f"What costs most is {costliest}: keep those unquantized" if costliest else "Keep some weights unquantized"
    yield f"{most}, quantize in smaller groups or more bits, or allow more with `--max-kl`"
    if report.commands:
        yield f"Then repeat `{report.commands[0]}`"


def _after_doubt(report: Report) -> Iterator[str]:
    doubtful = [gate for gate in report.gates if gate.verdict is Verdict.CANNOT_TELL]
    dtype = report.subject.dtype
    overflow = any("not finite" in gate.reason for gate in doubtful)
    others = WIDER.get(dtype, ()) if overflow else FINER.get(dtype, ())
    said = f"Hugging Face itself is not finite in {dtype}"
    if not overflow:
        said = f"Hugging Face's own error in {dtype} is too large to judge by"
    if doubtful and others:
        yield f"{said}: try {' or '.join(f'`--dtype {each}`' for each in others)}"
    elif doubtful:
        yield f"{said}, and no data type does better: see what `{doubtful[0].name}` says of its two runs"
    if report.subject.random_weights:
        yield "Random weights may be to blame: leave `--random-weights` out if you have the checkpoint"


def _after_pass(report: Report) -> Iterator[str]:
    if report.not_exercised:
        what = name_a_few([item.what for item in report.not_exercised])
        yield f"Nothing is proven about what was not exercised: {what}"


def _place(excerpt: Excerpt) -> str:
    whose = "" if excerpt.side == "port" else "Hugging Face's "
    return f"{whose}`{excerpt.path}` line {excerpt.marked[0]}"


def _first_wrong(report: Report) -> str:
    failing = (tap.name for tap in report.taps if tap.verdict is Verdict.FAIL)
    return next(failing, report.first_divergence or "")
