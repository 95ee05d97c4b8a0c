"""The catalogue of bugs."""

from __future__ import annotations

from trtllm_port.verification.prove import (
    attention_bugs,
    layer_bugs,
    moe_bugs,
    quantized_bugs,
    source_bugs,
    state_bugs,
    weight_bugs,
)
from trtllm_port.verification.prove.bugs import Bug

CATALOGUE: tuple[Bug, ...] = (
    *source_bugs.BUGS,
    *attention_bugs.BUGS,
    *weight_bugs.BUGS,
    *quantized_bugs.BUGS,
    *moe_bugs.BUGS,
    *state_bugs.BUGS,
    *layer_bugs.BUGS,
)
