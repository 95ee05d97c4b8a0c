"""All hypotheses, in the order in which equally good ones are named: special before general."""

from __future__ import annotations

from trtllm_port.verification.experiments import arithmetic, attention, parameters, wiring
from trtllm_port.verification.experiments.hypotheses import Hypothesis

HYPOTHESES: tuple[Hypothesis, ...] = (
    *parameters.TABLE,
    *arithmetic.TABLE,
    *wiring.TABLE,
    *attention.TABLE,
    *arithmetic.LATE,
)
IDS = frozenset(hypothesis.id for hypothesis in HYPOTHESES)
