"""A report about a port that could not be run: it fails, and says why."""

from __future__ import annotations

from collections.abc import Mapping

from trtllm_port.verification.causes.locations import Excerpt
from trtllm_port.verification.causes.signatures import Cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.report.assembly import subject_of, versions
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.sides.preparation import Model

NOTHING_FED = {"tokens": 0, "source": "none", "decode_steps": 0, "batch_lengths": [], "batch_steps": 0, "limits": []}


def unrun_report(
    model: Model,
    summary: str,
    gate: Gate,
    cause: Cause,
    *,
    module: str | None,
    excerpts: tuple[Excerpt, ...],
    reference: Mapping[str, str],
) -> Report:
    """Return a failing report.

    Args:
        model: the model and its port.
        summary: what is wrong, in one sentence.
        gate: what failed.
        cause: what is wrong, with the place.
        module: where; None where that is not known.
        excerpts: the lines of it.
        reference: what of Hugging Face's was used.
    """
    return Report(
        kind="diff-layers",
        verdict=Verdict.FAIL,
        summary=summary,
        subject=subject_of(model),
        executor="none: nothing was run to its end",
        reference=reference,
        stimulus=NOTHING_FED,
        first_divergence=module,
        divergence=None,
        divergences=(),
        causes=(cause,),
        excerpts=excerpts,
        stages=(),
        gates=(gate,),
        taps=(),
        ignored={},
        position_profile={},
        not_exercised=(NotExercised(what="every module", reason="the port cannot be run, so nothing was compared"),),
        versions=versions(),
        commands=(),
        seconds=0.0,
    )
