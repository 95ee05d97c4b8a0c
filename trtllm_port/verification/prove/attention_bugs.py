"""Bugs that are edits of `model.py`: rotary embeddings, positions, masks, attention, heads."""

from __future__ import annotations

import ast
import copy
import re

from trtllm_port.verification.prove.bugs import Bug, at_attention, at_attribute, at_called, source_bug
from trtllm_port.verification.prove.source_edits import (
    Change,
    EditSpot,
    calls,
    keyword,
    own_call,
    with_argument,
    without_argument,
    written,
)

ROTATION = "rotary_embedding"


def rotation_left_out(word: str) -> Change:
    """Queries or keys are not rotated."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, ROTATION)
        return call.args[0] if call is not None and word in ast.unparse(call.args[0]) else None

    return change


def other_layout(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Queries are rotated in neighbouring pairs instead of halves, or the reverse."""
    call = calls(node, ROTATION)
    if call is None:
        return None
    given = keyword(call, "interleaved")
    return with_argument(call, "interleaved", "not {0}" if given is not None else "True")


def backwards(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Queries are rotated in the other direction."""
    call = calls(node, ROTATION)
    return None if call is None else with_argument(call, 2, "-{0}")


def sine_for_cosine(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Sines and cosines swapped."""
    call = calls(node, ROTATION)
    if call is None:
        return None
    changed = copy.deepcopy(call)
    changed.args[1], changed.args[2] = changed.args[2], changed.args[1]
    return changed


def rope_parameters(template: str) -> Change:
    """Other parameters of the rotary frequencies."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, "RotaryEmbedding")
        return None if call is None else with_argument(call, 0, template)

    return change


def positions(template: str) -> Change:
    """Other positions for the rotary embedding, or for learned position embeddings."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        if not isinstance(node, ast.Call) or not spot.layers or not own_call(node) or spot.function != "forward":
            return None
        for place, argument in enumerate(node.args):
            if ast.unparse(argument) == "position_ids":
                return with_argument(node, place, template)
        return None

    return change


def mask_positions(template: str) -> Change:
    """Other positions for the mask."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, "causal_mask")
        return None if call is None else with_argument(call, 0, template)

    return change


def window(template: str) -> Change:
    """Another window."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        call = calls(node, "causal_mask")
        if call is None or keyword(call, "window") is None:
            return None
        return with_argument(call, "window", template) if template else without_argument(call, "window")

    return change


def window_added(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """A window where Hugging Face has none."""
    call = calls(node, "causal_mask")
    return None if call is None or keyword(call, "window") is not None else with_argument(call, "window", "48")


def scale(template: str) -> Change:
    """Another scale of the attention scores."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        if not spot.attends:
            return None
        call = calls(node, "attention")
        if call is not None and keyword(call, "scale") is not None:
            return with_argument(call, "scale", template)
        if isinstance(node, ast.BinOp) and "@" in ast.unparse(node) and "scal" in ast.unparse(node.right):
            return ast.BinOp(left=node.left, op=node.op, right=written(template, node.right))
        return None

    return change


def fused_order(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Queries and keys of a fused projection swapped."""
    is_split = isinstance(node, ast.Assign) and calls(node.value, "split", "chunk") is not None and spot.attends
    if not is_split or not isinstance(node.targets[0], ast.Tuple) or len(node.targets[0].elts) < 3:  # type: ignore[attr-defined]
        return None
    changed = copy.deepcopy(node)
    elements = changed.targets[0].elts  # type: ignore[attr-defined]
    elements[0], elements[1] = elements[1], elements[0]
    return changed


def tiled_heads(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Heads of keys are repeated as a whole row instead of one by one."""
    if not spot.attends or not isinstance(node, ast.Subscript):
        return None
    if ast.unparse(node.slice) in ("(:, :, None, :, :)", ":, :, None, :, :") and "key" in ast.unparse(node.value):
        return written("{0}[:, None, :, :, :]", node.value)
    return None


def values_of_keys(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Keys are taken for values."""
    call = calls(node, "attention")
    if call is None:
        return None
    changed = copy.deepcopy(call)
    changed.args[2] = call.args[1]
    return changed


def heads_first(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The heads of the queries are cut out of the features in the wrong order."""
    if not isinstance(node, ast.Assign) or not spot.attends or "query" not in ast.unparse(node.targets[0]):
        return None
    text = ast.unparse(node)
    cut = re.compile(r"\.view\(0, 0, -1, (self\.(?:config\.)?head_(?:dim|size))\)\.transpose\(1, 2\)")
    changed = cut.sub(r".view(0, 0, \1, -1).permute(0, 3, 1, 2)", text)
    return None if changed == text else ast.parse(changed).body[0]


def attention_input(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The wrong projection: values from the keys' weights."""
    name = own_call(node)
    if not spot.attends or name != "v_proj" or not isinstance(node, ast.Call):
        return None
    changed = copy.deepcopy(node)
    changed.func.attr = "k_proj"  # type: ignore[attr-defined]
    return changed


FIRST = "position_ids[:, 0:1]"

BUGS: tuple[Bug, ...] = (
    source_bug("rope.keys", "keys are not rotated", "rope.keys", rotation_left_out("key")),
    source_bug("rope.queries", "queries are not rotated", "rope.queries", rotation_left_out("query")),
    source_bug(
        "rope.layout", "queries rotated in pairs instead of halves, or the reverse", "rope.layout", other_layout
    ),
    source_bug(
        "rope.layout.keys",
        "keys rotated in pairs instead of halves, or the reverse",
        "rope.layout",
        other_layout,
        skip=1,
    ),
    source_bug("rope.direction", "queries rotated in the other direction", "rope.direction", backwards),
    source_bug(
        "rope.sine_cosine", "sines and cosines of the keys swapped", "rope.sine_cosine", sine_for_cosine, skip=1
    ),
    source_bug(
        "rope.theta",
        "theta hard-coded",
        "rope.theta",
        rope_parameters("{0} | {{'rope_theta': 500000.0}}"),
        at_attribute,
    ),
    source_bug(
        "rope.theta.twice",
        "theta twice as large",
        "rope.theta",
        rope_parameters("{0} | {{'rope_theta': 2 * {0}['rope_theta']}}"),
        at_attribute,
    ),
    source_bug(
        "rope.scaling",
        "linear scaling of the positions by 4 that the config does not have",
        "rope.scaling",
        rope_parameters("{0} | {{'rope_type': 'linear', 'factor': 4.0}}"),
        at_attribute,
    ),
    source_bug("positions.offset", "positions one too large", "positions", positions("{0} + 1"), at_called),
    source_bug("positions.constant", "all positions zero", "positions", positions("{0} * 0"), at_called),
    source_bug(
        "positions.precision",
        "positions rounded to bfloat16",
        "positions",
        positions("{0}.to('bfloat16').to('int64')"),
        at_called,
    ),
    source_bug(
        "positions.restart",
        "positions begin at zero in every decode step",
        "decode",
        positions(f"{{0}} - {FIRST}"),
        at_called,
    ),
    source_bug("mask.future", "every token sees the next one", "mask", mask_positions("{0} + 1"), at_attention),
    source_bug(
        "mask.bidirectional",
        "every token sees all",
        "mask",
        mask_positions("{0} * 0 + (cache.max_seq_len - 1)"),
        at_attention,
    ),
    source_bug(
        "mask.restart",
        "a decode step sees the first token only",
        "decode",
        mask_positions(f"{{0}} - {FIRST}"),
        at_attention,
    ),
    source_bug("mask.window.left_out", "no window", "mask.window", window(""), at_attention),
    source_bug("mask.window.larger", "a window of one token more", "mask.window", window("{0} + 1"), at_attention),
    source_bug("mask.window.smaller", "a window of one token less", "mask.window", window("{0} - 1"), at_attention),
    source_bug("mask.window.added", "a window where there is none", "mask.window", window_added, at_attention),
    source_bug("attention.scale", "scale 1.1 times too large", "attention.scale", scale("{0} * 1.1")),
    source_bug("attention.scale.left_out", "no scale", "attention.scale", scale("1.0")),
    source_bug("attention.scale.squared", "scale 1/d instead of 1/sqrt(d)", "attention.scale", scale("{0} ** 2")),
    source_bug("attention.fused_order", "queries and keys of the fused projection swapped", "qkv.order", fused_order),
    source_bug("attention.tiled_heads", "heads of keys repeated in the wrong order", "attention.kv_order", tiled_heads),
    source_bug("attention.values", "keys taken for values", "attention.operands", values_of_keys),
    source_bug("attention.heads", "features cut into heads in the wrong order", "attention.heads", heads_first),
    source_bug(
        "attention.projection",
        "values from the keys' projection",
        "module.mixed_up module.left_out",
        attention_input,
        at_called,
    ),
)
