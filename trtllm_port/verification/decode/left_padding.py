"""The side of the padding: Hugging Face pads batches on the left, the port's runtime on the right.

Both must give a row the logits that it has alone, to within rounding. So the port's rows may be as far from the
reference as Hugging Face's left-padded ones are. Where those are further from it than unpadded ones, Hugging Face's
code depends on the padding, and that is not for the port to repeat.

T tokens of all rows, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trtllm_port.verification.judge.gates import Gate, skipped, threshold_gate
from trtllm_port.verification.judge.metrics import metrics
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING

NAME = "batch.left_padding"


def left_padding_gate(
    phase: tuple[str, str], port_TV: Tensor, hugging_face: tuple[Tensor, Tensor], left: Sequence[Tensor] | None
) -> Gate:
    """Judge the port's rows, which were padded on the right, by Hugging Face's left-padded ones.

    Args:
        phase: its name, and the port's dtype.
        port_TV: the port's logits of all rows.
        hugging_face: reference and yardstick of the same rows, each run alone.
        left: the yardstick's rows from a left-padded batch; None if it cannot run one.
    """
    name, dtype = phase
    if left is None:
        return skipped(NAME, name, "Hugging Face's model takes no attention mask")
    reference_TV, yardstick_TV = hugging_face
    alone = max(metrics(yardstick_TV, reference_TV).rel_l2, ROUNDING[dtype])
    padded = metrics(torch.cat(list(left)), reference_TV).rel_l2
    if not padded <= RATIO.passes * alone:
        reason = f"padded on the left, Hugging Face's own rows are {padded / alone:.3g} times as wrong as alone"
        return skipped(NAME, name, reason)
    if port_TV.shape != reference_TV.shape:
        return skipped(NAME, name, f"the port's logits have shape {list(port_TV.shape)}")
    return threshold_gate(NAME, name, metrics(port_TV, reference_TV).rel_l2 / max(padded, ROUNDING[dtype]), RATIO)
