"""Whether Hugging Face's own values can tell a right port from a wrong one.

Where they are not finite, are others each time, or are in float32 far from what they are in float64 (a buffer that
nobody fills), any port would agree with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from trtllm_port.codegen.discrete_choices import choices

# Of float32 off float64. A port may err five times as much, so that beyond this half of a tensor could be wrong.
USELESS_NOISE = 0.1
STEADY = 1e-3  # two runs of one model on the same tokens differ by rounding at most


def unsound(
    expected: Mapping[str, Tensor], noise: Mapping[str, float], compared: Collection[str], phase: str
) -> str | None:
    """Why Hugging Face judges nobody, at the first tap where it does not; None if it does.

    Args:
        expected: its taps in float32, in the order of execution.
        noise: the relative error of each against float64; infinite where that is not finite.
        compared: the taps that a port has, too.
        phase: of the comparison.
    """
    chosen = choices(expected)
    for name in (name for name in expected if name in compared):
        where = f"Hugging Face's own values at {f'`{name}`' if name else 'the logits'} ({phase})"
        if not bool(torch.isfinite(expected[name]).all()):
            return f"{where} are not finite"
        if name not in chosen and not noise[name] <= USELESS_NOISE:  # another choice near a tie is no error
            return f"{where} are in float32 {noise[name]:.0%} off those in float64"
    return None


def unsteady(run: Callable[[], Mapping[str, Tensor]]) -> str | None:
    """Why a model's values cannot be repeated; None if they can.

    Args:
        run: gives its taps, on the same tokens each time.
    """
    first, again = run(), run()
    for name, tensor in first.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            continue
        error = torch.linalg.vector_norm(again[name].double() - tensor.double())
        if not float(error) <= STEADY * float(torch.linalg.vector_norm(tensor.double())):
            named = f"`{name}`" if name else "the logits"
            return f"Hugging Face's own values at {named} are others each time, on the same tokens"
    return None
