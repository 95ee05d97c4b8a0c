"""Modules whose results go nowhere, those that hand on what they are given, and those that are called for some tokens
only, as one expert's: a port may do without them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import is_input, parent_of
from trtllm_port.verification.taps.pairing import Pairing
from trtllm_port.verification.taps.runner import Runner

REASON = "with nothing but NaN in its place Hugging Face gives the same logits, to the last bit"
PASSED_ON = "Hugging Face hands on what the module before it gave, to the last bit"

PART = "Hugging Face calls it for some of the tokens at a time; what comes of all is compared around it"


def without_idle(pairing: Pairing, runner: Runner, stimulus: Stimulus) -> Pairing:
    """`pairing`, with missing taps ignored that change nothing of what Hugging Face computes.

    Args:
        pairing: with missing taps.
        runner: Hugging Face's model.
        stimulus: the input that it is tried on.
    """
    ids_1L = torch.tensor([stimulus.ids])
    pairing = _without_parts(_without_passed_on(pairing, runner, ids_1L), runner, ids_1L)
    spoiled: list[str] = []

    def spoil(tap: str, tensor: Tensor) -> Tensor | None:
        if tap not in pairing.missing or not tensor.is_floating_point():
            return None
        spoiled.append(tap)
        return torch.full_like(tensor, float("nan"))

    if not pairing.missing:
        return pairing
    plain, found = runner.run(ids_1L), runner.run(ids_1L, on_tap=spoil, taps=pairing.missing)
    if not spoiled or not torch.equal(plain, found):
        return pairing
    return _ignored(pairing, spoiled, REASON)


def _without_passed_on(pairing: Pairing, runner: Runner, ids_1L: Tensor) -> Pairing:
    """`pairing`, with missing taps ignored that are the tap before, to the last bit: an adapter of images, for text."""
    before: list[Tensor] = []
    found: list[str] = []

    def look(tap: str, tensor: Tensor) -> None:
        if tap in pairing.missing and before and torch.equal(before[-1], tensor):
            found.append(tap)
        before[:] = [tensor]

    outputs = [tap for tap in pairing.paired if not is_input(tap)]
    runner.run(ids_1L, on_tap=look, taps=(*outputs, *pairing.missing))
    return _ignored(pairing, found, PASSED_ON)


def _without_parts(pairing: Pairing, runner: Runner, ids_1L: Tensor) -> Pairing:
    """`pairing`, with missing taps ignored of modules that get rows of tokens, and not one for each token.

    Those are experts, which get the tokens that chose them. Around them the sum over experts must be compared.
    """
    found: list[str] = []

    def look(tap: str, tensor: Tensor) -> None:
        if tensor.ndim == 2 and len(tensor) != ids_1L.numel() and parent_of(tap) in pairing.paired:
            found.append(tap)

    if pairing.missing:
        runner.run(ids_1L, on_tap=look, taps=pairing.missing)
    return _ignored(pairing, found, PART)


def _ignored(pairing: Pairing, taps: list[str], reason: str) -> Pairing:
    rest = tuple(tap for tap in pairing.missing if tap not in taps)
    return replace(pairing, missing=rest, ignored={**pairing.ignored, **dict.fromkeys(taps, reason)})
