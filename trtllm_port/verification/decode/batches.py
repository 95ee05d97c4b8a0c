"""Where a port goes wrong that is right on one row, prefill and decode, and wrong on a batch: by the taps of one token.

Hugging Face runs the row of the first token that differs alone; the same tokens in a right-padded batch must give the
same, in every module. The whole of a large model is fed no batch; its first layers are, and are placed like any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trtllm_port.verification.causes.locations import Look
from trtllm_port.verification.causes.signatures import Cause
from trtllm_port.verification.decode.decode_steps import BATCH, LOGITS_INDICES, after_prefill, use_cause
from trtllm_port.verification.decode.single_token import Fed, token_comparisons
from trtllm_port.verification.judge.divergence import first_divergence
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceSides
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.taps.names import LOGITS, ROOT, within
from trtllm_port.verification.taps.pairing import ModuleFacts
from trtllm_port.verification.taps.runner import PortRunner

MASK = r"causal_mask\("
POSITIONS = r"^(?!.*causal_mask\().*position_ids"
GATHER = r"gather_tokens\("


def batch_cause(gates: Sequence[Gate]) -> Cause | None:
    """Return what is said of a port by its gates alone, where one row is right and several are not."""
    cause = use_cause(gates)
    return cause if cause is not None and cause.id in (BATCH, LOGITS_INDICES) else None


def row_comparisons(
    sides: HuggingFaceSides,
    port: PortRunner,
    expected: Expected,
    cause: Cause,
    at: tuple[tuple[int, int], Sequence[str]],
) -> dict[str, TapComparison]:
    """Compare taps of a batch with Hugging Face's own of the row alone.

    Args:
        sides: Hugging Face's runs; the reference runs once more.
        port: the port.
        expected: noise floors, and how taps are paired.
        cause: what is said by the gates; where only the choice of tokens is wrong, nothing is left to compare.
        at: row and position of the token, and which taps.
    """
    if cause.id == LOGITS_INDICES:
        return {LOGITS: failure(LOGITS, "where each row of a batch asks for its last token")}
    (row, position), taps = at
    stimulus = sides.stimulus
    step = position - stimulus.row_prefill[row]
    kept = [row[: n + max(0, step + 1)] for row, n in zip(stimulus.rows, stimulus.row_prefill, strict=True)]
    fed = Fed(
        rows=kept,
        prefill=stimulus.row_prefill,
        row=row,
        position=position,
        alone=_alone(sides, stimulus.rows[row], taps),
        length=len(stimulus.rows[row]),
        routing=sides.recording.row_routing,
        note=f"in row {row + 1} of {len(kept)} in a padded batch, "
        + ("in the prefill" if step < 0 else after_prefill(step)),
    )
    return token_comparisons(port, fed, expected, taps)


def _alone(sides: HuggingFaceSides, row: Sequence[int], taps: Sequence[str]) -> Mapping[str, Tensor]:
    """Run the reference on a row; copies, as a model may later write into what it has given."""
    kept: dict[str, Tensor] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        kept[tap] = tensor.detach().clone()

    kept[LOGITS] = sides.load(sides.phase.reference_dtype).run(torch.tensor([row]), on_tap=keep, taps=taps)
    return kept


def batch_divergence(
    order: Sequence[str], found: Mapping[str, TapComparison], cause: Cause, modules: Mapping[str, ModuleFacts]
) -> tuple[tuple[str, ...], dict[str, tuple[Cause, ...]]]:
    """Return the module that first differs in a batch, and the hypothesis about it.

    Args:
        order: all taps in Hugging Face's order.
        found: the comparisons.
        cause: what is said by the gates alone.
        modules: Hugging Face's.
    """
    module = first_divergence(order, found)
    if module is None:
        return (), {}
    if cause.id == LOGITS_INDICES:
        return (module,), {module: (replace(cause, look=Look(patterns=(GATHER, LOGITS_INDICES))),)}
    note = next(each.note for each in found.values() if each.diverged)
    what, look = _mixed(module, modules)
    where = f"`{module}`" if module else "the model itself"
    placed = replace(
        cause,
        cause=what,
        evidence=f"{cause.evidence}: {where} first differs {note}",
        look=look,
    )
    return (module,), {module: (placed,)}


def _mixed(module: str, modules: Mapping[str, ModuleFacts]) -> tuple[str, Look]:
    """Say what of a row goes into another where a module is the first that differs, and what to look at."""
    if module == ROOT:
        return "logits of other tokens, or other rows', than asked for", Look(patterns=(GATHER, LOGITS_INDICES))
    if "Attention" in modules[module].class_name:
        return (
            "the mask, positions or KV cache of one row stand for those of another",
            Look(patterns=(MASK, POSITIONS), elsewhere=(MASK,)),
        )
    if not any(within(other, module) for other in modules):  # it computes rows apart: what it is given is not its own
        return "what one row is computed with, as its positions, stands for that of another", Look(caller=True)
    return "rows of a padded batch disturb each other", Look(patterns=(POSITIONS, MASK))
