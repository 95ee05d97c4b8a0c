"""Where a port goes wrong whose prefill is right and whose next token is not: the taps of the first step.

Hugging Face computes the token at position n in one forward of all tokens; a step through the KV cache must give the
same for that token, in every module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from trtllm_port.verification.causes import Cause
from trtllm_port.verification.compare import TapComparison, judge
from trtllm_port.verification.locate import first_divergence
from trtllm_port.verification.metrics import token_errors
from trtllm_port.verification.places import Look
from trtllm_port.verification.ports import Expected
from trtllm_port.verification.runners import PortRunner
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS

NOTE = "in the first step after the prefill"


def step_comparisons(port: PortRunner, stimulus: Stimulus, expected: Expected) -> dict[str, TapComparison]:
    """Compare every tap of the first step after the prefill."""
    position = len(stimulus.ids) - stimulus.decode_steps
    found: dict[str, TapComparison] = {}

    def observe(tap: str, value: Tensor, places: Sequence[range]) -> Tensor:
        if list(places[0]) == [position]:
            comparison = _compare(tap, value, position, expected)
            if comparison is not None:
                found[tap] = comparison
        return value

    taps = [tap for tap in expected.pairing.paired if tap in expected.floors and tap != LOGITS]
    port.run_incrementally([stimulus.ids[: position + 1]], [position], force=observe, taps=taps)
    return found


def _compare(tap: str, value: Tensor, position: int, expected: Expected) -> TapComparison | None:
    reference = expected.recording.taps[tap]
    length = expected.recording.length
    axes = [
        axis for axis in range(1, reference.ndim) if reference.shape[axis] == length and reference.ndim == value.ndim
    ]
    if len(axes) != 1 or value.shape[axes[0]] != 1:
        return None  # no tensor per token
    counterpart = reference.narrow(axes[0], position, 1)
    if counterpart.shape[-1] == 2 * value.shape[-1]:
        counterpart = counterpart[..., : value.shape[-1]]  # a rotary table, see `rotary.py`
    if counterpart.shape != value.shape:
        return None
    comparison = judge(tap, token_errors(value, counterpart), expected.floors[tap], expected.dtype)
    return replace(comparison, note=NOTE)


def step_divergence(
    order: Sequence[str], steps: dict[str, TapComparison]
) -> tuple[tuple[str, ...], dict[str, tuple[Cause, ...]]]:
    """Return the module that first differs in the step, and the hypothesis about it."""
    module = first_divergence(order, steps)
    if module is None:
        return (), {}
    cause = Cause(
        id="decode",
        cause="KV cache, mask or positions are wrong after the first step",
        status="likely",
        evidence=f"the prefill is right; `{module}` first differs in the first step after it, on the same tokens",
        place="`cache.update`, the mask and the use of `position_ids` in `model.py`",
        look=Look(patterns=(r"cache\.", r"position_ids"), elsewhere=(r"causal_mask\(",)),
    )
    return (module,), {module: (cause,)}
