"""The noise floor of decode steps.

The yardstick's logits come from one forward of all tokens. A step multiplies one row at a time, by kernels that add up
in another order, and that may cost more than the forward: then Hugging Face's own steps are the yardstick.

S steps, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from trtllm_port.verification.judge.gates import Gate, logit_gates
from trtllm_port.verification.judge.metrics import metrics
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING
from trtllm_port.verification.judge.verdict import Verdict


def decode_gates(
    phase: tuple[str, str], runs: tuple[Tensor, Tensor, Tensor], own_steps: Callable[[], Tensor | None]
) -> list[Gate]:
    """Judge the logits of decode steps.

    Hugging Face's own steps are run where the forward of all tokens does not make the port pass. They count only as far
    as they are no worse than a port may be: what transformers' cache does wrong excuses nobody.

    Args:
        phase: its name, and the port's dtype.
        runs: logits [S, V] of the port, the reference and the yardstick.
        own_steps: gives the yardstick's through its own cache; None where it has none.
    """
    gates = logit_gates("decode", *phase, runs)
    if all(gate.verdict in (Verdict.PASS, Verdict.SKIPPED) for gate in gates):
        return gates
    port, reference, forward = runs
    steps = own_steps()
    if steps is None or steps.shape != reference.shape or not bool(steps.isfinite().all()):
        return gates
    floor = max(metrics(forward, reference).rel_l2, ROUNDING[phase[1]])
    usual = floor < metrics(steps, reference).rel_l2 <= RATIO.warns * floor
    return logit_gates("decode", *phase, (port, reference, steps)) if usual else gates
