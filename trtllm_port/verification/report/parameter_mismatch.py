"""A port whose parameters are not Hugging Face's: a difference that shows before anything is computed.

The conversion refuses weights that do not fit the port. If they do fit Hugging Face's model, the port is wrong, and
that is a verdict, not an error of the input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trtllm_port.errors import CheckpointError, PortError
from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.locations import place_of
from trtllm_port.verification.causes.source_tree import PortCode
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.report.assembly import class_names, excerpts_at
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.report.unrunnable import unrun_report
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.sides.preparation import Model

PROBLEM = re.compile(r"^\s*(missing|unexpected|shape of) `([^`]+)`", re.MULTILINE)
MEANINGS = {
    "unexpected": "the checkpoint has it, and Hugging Face uses it; the port has no such parameter",
    "missing": "the port wants it; neither Hugging Face nor the checkpoint has such a parameter",
    "shape of": "the port has it with another shape",
}


def mismatch_report(model: Model, error: CheckpointError) -> Report:
    """Turn a refused conversion into a failing report, if the port is to blame.

    Args:
        model: the model and its port.
        error: of the conversion.

    Raises:
        CheckpointError: the weights do not fit Hugging Face's model either, or the error is about something else.
    """
    problems: list[tuple[str, str]] = PROBLEM.findall(error.message)
    runner = _load_complete(model) if problems else None
    if runner is None:
        raise error
    parameters = list(runner.parameters())
    problems.sort(key=lambda problem: parameters.index(problem[1]) if problem[1] in parameters else len(parameters))
    kind, name = problems[0]
    facts = HuggingFaceFacts.of(runner)
    module = name.rpartition(".")[0]
    code = PortCode(model.port.packages, model.port.cls)
    place = place_of(code.sources(class_names(facts)), module) or f"`{module}` in `model.py`"
    return unrun_report(
        model,
        f"the port's parameters are not Hugging Face's, first at `{module}`: {MEANINGS[kind]} (`{name}`)",
        _gate(problems),
        Cause(cause=_cause(kind, name), status="confirmed", evidence=f"`{name}`: {MEANINGS[kind]}", place=str(place)),
        module=module,
        excerpts=excerpts_at(module, code, facts),
        reference={"weights": runner.name},
    )


def _load_complete(model: Model) -> HuggingFaceRunner | None:
    """Return Hugging Face's model if the checkpoint fits it exactly."""
    try:
        return HuggingFaceRunner.load(model.source, "float32", trust_remote_code=model.trust_remote_code, exactly=True)
    except PortError:
        return None


def _cause(kind: str, name: str) -> str:
    what = name.rpartition(".")[2]
    return f"{what} dropped" if kind == "unexpected" else f"{what} wrong: {kind.removesuffix(' of')}"


def _gate(problems: Sequence[tuple[str, str]]) -> Gate:
    named = ", ".join(f"{kind} `{name}`" for kind, name in problems[:8])
    return Gate(
        name="weights.accounted",
        phase="convert",
        verdict=Verdict.FAIL,
        value=float(len(problems)),
        threshold=0.0,
        reason=f"{named}; every tensor must be used once or dropped with a reason, every parameter filled",
        source="NeMo Automodel; Keras-hub parameter count",
    )
