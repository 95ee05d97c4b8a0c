"""All hypotheses, in the order in which equally good ones are named: special before general."""

from __future__ import annotations

from trtllm_port.verification.causes.quantized_laws import IDS as QUANTIZED_IDS
from trtllm_port.verification.causes.weight_laws import IDS as WEIGHT_IDS
from trtllm_port.verification.experiments import arithmetic, attention, masks, parameters, precision, steps, wiring
from trtllm_port.verification.experiments.hypotheses import Hypothesis

HYPOTHESES: tuple[Hypothesis, ...] = (
    *parameters.TABLE,
    *arithmetic.TABLE,
    *wiring.TABLE,
    *masks.TABLE,
    *attention.TABLE,
    *steps.TABLE,
    *precision.TABLE,
    *arithmetic.GENERAL,
    *steps.GENERAL,
)
IDS = frozenset(hypothesis.id for hypothesis in HYPOTHESES) | WEIGHT_IDS | QUANTIZED_IDS
