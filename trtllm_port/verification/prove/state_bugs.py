"""Bugs of what is kept from call to call, and of rows: caches, recurrences, steps after the first, batches."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.verification.prove.attention_bugs import mask_positions, positions
from trtllm_port.verification.prove.bugs import Bug, SoundPort, Weights, at_attention, at_called, source_bug, weight_bug
from trtllm_port.verification.prove.source_edits import Change, EditSpot, calls, own_call, with_argument
from trtllm_port.verification.prove.weight_bugs import layer_of

LATER = "(cache.position_ids[:, 0:1] > 0)"  # [B, 1]: the call continues a sequence
FIRST_ROW = "{0} * 0 + {0}[0:1]"


def operand_later(place: int, factor: float) -> Change:
    """An operand of attention is too large in the steps after the prefill, and there only."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, "attention")
        if call is None or not spot.attends:
            return None
        later = f"{LATER}.unsqueeze(2).unsqueeze(3).to({{0}}.dtype)"
        return with_argument(call, place, f"{{0}} * (1.0 + {factor} * {later})")

    return change


def kept(place: int, template: str) -> Change:
    """What the cache keeps of keys (1) or values (2), and attention reads back."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, "update")
        return with_argument(call, place, template) if call is not None and _is_cache(call) else None

    return change


def _is_cache(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "cache"


def keys_and_values_exchanged(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """What the cache gives back is taken the wrong way round."""
    if not isinstance(node, ast.Assign) or calls(node.value, "update") is None:
        return None
    target = node.targets[0]
    if not isinstance(target, ast.Tuple) or len(target.elts) != 2 or "cache" not in ast.unparse(node.value):
        return None
    changed = copy.deepcopy(node)
    changed.targets[0].elts.reverse()  # type: ignore[attr-defined]
    return changed


def logits_of_first_row(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Logits of all rows are taken at the first row's index."""
    call = calls(node, "gather_tokens")
    return None if call is None else with_argument(call, 1, FIRST_ROW)


def decay(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """A recurrence forgets a tenth faster."""
    if not isinstance(node, ast.Call) or own_call(node):
        return None
    for argument in node.keywords:
        if argument.arg in ("log_decay", "decay"):
            return with_argument(node, argument.arg, "{0} * 1.1" if argument.arg == "log_decay" else "{0} ** 1.1")
    return None


def of_recurrence(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[SoundPort], Weights | None]:
    """A parameter of the last recurrent layer, changed."""

    def bug(port: SoundPort) -> Weights | None:
        names = [n for n in port.weights if re.search(name, n)]
        last = max(names, key=lambda n: layer_of(n) or 0, default=None)
        return None if last is None else {last: change(port.weights[last]).contiguous()}

    return bug


BUGS: tuple[Bug, ...] = (
    source_bug(
        "decode.scale", "queries 1.03 times as large in the steps after the prefill", "decode", operand_later(0, 0.03)
    ),
    source_bug(
        "decode.values", "values 1.02 times as large in the steps after the prefill", "decode", operand_later(2, 0.02)
    ),
    source_bug(
        "decode.mask",
        "a step after the prefill does not see its own token",
        "decode",
        mask_positions("{0} - ({0}[:, 0:1] > 0).to({0}.dtype)"),
        at_attention,
    ),
    source_bug(
        "decode.positions",
        "positions one too large after the prefill",
        "decode",
        positions("{0} + ({0}[:, 0:1] > 0).to({0}.dtype)"),
        at_called,
    ),
    source_bug(
        "cache.keys.scaled",
        "the cache keeps keys that are a hundredth too small",
        "attention.scale multiplier",
        kept(1, "{0} * 0.99"),
    ),
    source_bug(
        "cache.values.half",
        "the cache keeps values rounded to bfloat16",
        "precision.cast precision.weight",
        kept(2, "{0}.to('bfloat16').to({0}.dtype)"),
    ),
    source_bug(
        "cache.exchanged",
        "keys and values from the cache taken the wrong way round",
        "attention.operands module.swapped",
        keys_and_values_exchanged,
    ),
    source_bug(
        "rows.logits", "logits of all rows at the first row's index", "batch logits_indices", logits_of_first_row
    ),
    source_bug(
        "rows.positions",
        "positions of the first row for all rows",
        "batch logits_indices",
        positions(FIRST_ROW),
        at_called,
    ),
    source_bug(
        "rows.mask",
        "the mask of the first row for all rows",
        "batch logits_indices",
        mask_positions(FIRST_ROW),
        at_attention,
    ),
    source_bug("recurrence.decay", "a recurrence forgets a tenth faster", "multiplier number", decay),
    weight_bug(
        "recurrence.decay_sign",
        "decay rates of a recurrence negated",
        "weight.scale",
        of_recurrence(r"A_log$", lambda w: -w),
    ),
    weight_bug(
        "recurrence.step_bias",
        "the bias of a recurrence's step is zero",
        "bias.left_out weight.values",
        of_recurrence(r"dt_bias$", torch.zeros_like),
    ),
    weight_bug(
        "recurrence.skip",
        "what a recurrence adds of its input is left out",
        "bias.left_out weight.values",
        of_recurrence(r"\.D$", torch.zeros_like),
    ),
    weight_bug(
        "convolution.reversed",
        "taps of a short convolution in reverse order",
        "weight.permuted",
        of_recurrence(r"conv1d\.weight$", lambda w: w.flip(-1)),
    ),
    weight_bug(
        "convolution.shifted",
        "taps of a short convolution shifted by one",
        "weight.permuted",
        of_recurrence(r"conv1d\.weight$", lambda w: w.roll(1, -1)),
    ),
)
