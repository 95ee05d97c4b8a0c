"""Modules whose results go nowhere: a port may do without them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trtllm_port.verification.runners import Runner
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import Pairing

REASON = "with nothing but NaN in its place Hugging Face gives the same logits, to the last bit"


def without_idle(pairing: Pairing, runner: Runner, stimulus: Stimulus) -> Pairing:
    """`pairing`, with missing taps ignored that have no influence on Hugging Face's logits.

    Args:
        pairing: with missing taps.
        runner: Hugging Face's model.
        stimulus: the input that it is tried on.
    """
    ids_1L = torch.tensor([stimulus.ids])
    spoiled: list[str] = []

    def spoil(tap: str, tensor: Tensor) -> Tensor | None:
        if tap not in pairing.missing or not tensor.is_floating_point():
            return None
        spoiled.append(tap)
        return torch.full_like(tensor, float("nan"))

    plain, found = runner.run(ids_1L), runner.run(ids_1L, on_tap=spoil, taps=pairing.missing)
    if not spoiled or not torch.equal(plain, found):
        return pairing
    rest = tuple(tap for tap in pairing.missing if tap not in spoiled)
    return replace(pairing, missing=rest, ignored={**pairing.ignored, **dict.fromkeys(spoiled, REASON)})
