"""Bugs in one layer of many, of precision inside a port, of tables, and of conversion in parts of a parameter."""

from __future__ import annotations

import ast
from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.verification.prove.bugs import Bug, SoundPort, Weights, at_called, source_bug, weight_bug
from trtllm_port.verification.prove.source_bugs import epsilon
from trtllm_port.verification.prove.source_edits import (
    Edited,
    EditSpot,
    calls,
    keyword,
    own_call,
    with_argument,
    written,
)
from trtllm_port.verification.prove.weight_bugs import LAYER, bias, changed, ends, gain, layer_of, matrix, pick

SECOND = "locals().get('layer_idx') == 1"


def at_second(port: SoundPort, edited: Edited) -> tuple[str, ...]:
    """The second module of the class that was edited, or the part of it that the statement makes."""
    owner = [path for path in port.all_of(edited.spot.class_name) if layer_of(f"{path}.") == 1]
    part = edited.spot.attribute
    return tuple(f"{path}.{part}" if f"{path}.{part}" in port.classes else path for path in owner)


def scale_of_second(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The second layer's scores are scaled 1.05 times."""
    if not isinstance(node, ast.Assign) or not spot.attends or spot.attribute not in ("scaling", "scale"):
        return None
    return ast.Assign(targets=node.targets, value=written(f"{{0}} * (1.05 if {SECOND} else 1.0)", node.value))


def last_layer_scaled(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """What the last layer gives on is 1.01 times what it should be."""
    if not spot.layers or not isinstance(node, ast.Call) or ast.unparse(node.func) != "layer":
        return None
    return written("{0} * (1.01 if layer is list(self.layers)[-1] else 1.0)", node)


def last_layer_twice(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The first layer's parameters serve in the last layer, too."""
    if not spot.layers or not isinstance(node, ast.Call) or ast.unparse(node.func) != "layer":
        return None
    called = ast.unparse(node).removeprefix("layer")
    return written(f"(list(self.layers)[0] if layer is list(self.layers)[-1] else layer){called}")


def activation_half(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """What the activation gives is rounded to bfloat16."""
    if not isinstance(node, ast.Call) or not own_call(node).startswith("act") or spot.function != "forward":
        return None
    return written("{0}.to('bfloat16').to({1}.dtype)", node, node.args[0])


def rotation_half(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Cosines are rounded to bfloat16."""
    call = calls(node, "rotary_embedding")
    return None if call is None else with_argument(call, 1, "{0}.to('bfloat16').to({0}.dtype)")


def head_half(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The head computes on values rounded to float16."""
    if not isinstance(node, ast.Call) or own_call(node) != "lm_head":
        return None
    return with_argument(node, 0, "{0}.to('float16').to({0}.dtype)")


def soft_cap_larger(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The soft cap of the scores is a tenth of what it should be."""
    call = calls(node, "attention")
    return None if call is None or keyword(call, "softcap") is None else with_argument(call, "softcap", "{0} * 0.1")


def table(port: SoundPort, *, head: bool) -> str | None:
    """Return the name of the embedding, or of a head that is not tied to it."""
    names = [n for n, w in port.weights.items() if layer_of(n) is None and w.ndim == 2]
    heads = [name for name in names if "head" in name or "embed_out" in name]
    return next(iter(heads if head else [name for name in names if name not in heads]), None)


def tied_head(port: SoundPort) -> tuple[str, ...]:
    """The head where it is the embedding once more: there a row shows that the prompt does not look up."""
    return ("lm_head",) if table(port, head=True) is None and "lm_head" in port.order else ()


def of_table(change: Callable[[Tensor], Tensor], *, head: bool) -> Callable[[SoundPort], Weights | None]:
    """The embedding or the head, changed in a few rows."""

    def bug(port: SoundPort) -> Weights | None:
        name = table(port, head=head)
        return None if name is None else {name: change(port.weights[name].clone()).contiguous()}

    return bug


def row_zero(rows: Tensor) -> Tensor:
    rows[-3] = 0
    return rows


def rows_exchanged(rows: Tensor) -> Tensor:
    rows[[5, 6]] = rows[[6, 5]]
    return rows


def tail_zero(rows: Tensor) -> Tensor:
    rows[-8:] = 0
    return rows


def last_row_zero(weight: Tensor) -> Tensor:
    weight = weight.clone()
    weight[-1] = 0
    return weight


def columns_reversed(weight: Tensor) -> Tensor:
    """Heads of the input in reverse order."""
    return weight.reshape(weight.shape[0], 4, -1).flip(1).reshape(weight.shape)


def float8(weight: Tensor) -> Tensor:
    """Rounded to eight bits, with one scale for all."""
    scale = weight.abs().max() / 448
    return (weight / scale).to(torch.float8_e4m3fn).to(weight.dtype) * scale


def half_of_neighbour(port: SoundPort) -> Weights | None:
    """The second half of a projection's rows is that of the layer before."""
    name = pick(port, matrix)
    other = None if name is None else port.weights.get(LAYER.sub(".0.", name, count=1))
    if name is None or other is None or other.shape != port.weights[name].shape:
        return None
    half = other.shape[0] // 2
    return {name: torch.cat([port.weights[name][:half], other[half:]])}


def of_neighbour(*fits: Callable[[str, Tensor], bool]) -> Callable[[SoundPort], Weights | None]:
    """A vector of the layer before."""

    def bug(port: SoundPort) -> Weights | None:
        name = pick(port, *fits)
        other = None if name is None else port.weights.get(LAYER.sub(".0.", name, count=1))
        return None if name is None or other is None else {name: other.clone()}

    return bug


def queries_of_keys(port: SoundPort) -> Weights | None:
    """The last rows of the queries' projection are the first of the keys', as by a wrong cut of a fused matrix."""
    query, key = pick(port, ends("q_proj.weight")), pick(port, ends("k_proj.weight"))
    if query is None or key is None:
        return None
    rows, other = port.weights[query], port.weights[key]
    shift = other.shape[0] // 2
    return {query: torch.cat([rows[shift:], other[:shift]])}


BUGS: tuple[Bug, ...] = (
    source_bug(
        "layer.epsilon",
        "epsilon of one layer's norm fixed at 1e-3",
        "norm.epsilon",
        epsilon(f"1e-3 if {SECOND} else {{0}}"),
        at_second,
    ),
    source_bug(
        "layer.scale",
        "the scale of one layer's scores 1.05 times as large",
        "attention.scale",
        scale_of_second,
        at_second,
    ),
    source_bug(
        "layer.scaled",
        "the last layer's result is 1.01 times what it should be",
        "multiplier residual.scale",
        last_layer_scaled,
    ),
    source_bug(
        "layer.twice",
        "the first layer called once more instead of the last",
        "module.mixed_up module.left_out weight.neighbour",
        last_layer_twice,
        at_called,
    ),
    source_bug(
        "precision.activation",
        "the activation's result rounded to bfloat16",
        "precision.cast precision.weight",
        activation_half,
    ),
    source_bug(
        "precision.rotation",
        "cosines rounded to bfloat16",
        "rope.precision precision.cast precision.weight",
        rotation_half,
    ),
    source_bug(
        "precision.head",
        "the head computes on values rounded to float16",
        "precision.cast precision.weight",
        head_half,
    ),
    source_bug(
        "attention.soft_cap.smaller",
        "the soft cap of the scores a tenth of what it should be",
        "soft_cap",
        soft_cap_larger,
    ),
    weight_bug(
        "table.row",
        "one token's embedding is zero",
        "weight.values table.rows",
        of_table(row_zero, head=False),
        tied_head,
    ),
    weight_bug(
        "table.exchanged",
        "two tokens' embeddings exchanged",
        "weight.permuted weight.values table.rows",
        of_table(rows_exchanged, head=False),
        tied_head,
    ),
    weight_bug(
        "table.tail",
        "the last embeddings are zero, as after a smaller vocabulary",
        "weight.values table.rows",
        of_table(tail_zero, head=False),
        tied_head,
    ),
    weight_bug(
        "head.row", "one token's row of the head is zero", "weight.values table.rows", of_table(row_zero, head=True)
    ),
    weight_bug(
        "head.exchanged",
        "two tokens' rows of the head exchanged",
        "weight.permuted weight.values table.rows",
        of_table(rows_exchanged, head=True),
    ),
    weight_bug(
        "head.tail", "the last rows of the head are zero", "weight.values table.rows", of_table(tail_zero, head=True)
    ),
    weight_bug(
        "weights.last_row",
        "the last row of a projection is zero",
        "weight.values table.rows",
        changed(last_row_zero, matrix),
    ),
    weight_bug("weights.negated", "a projection negated", "weight.scale multiplier", changed(lambda w: -w, matrix)),
    weight_bug(
        "weights.half_neighbour",
        "half of a projection's rows are those of the layer before",
        "weight.values weight.neighbour",
        half_of_neighbour,
    ),
    weight_bug("weights.gain_neighbour", "a norm's gain of the layer before", "weight.neighbour", of_neighbour(gain)),
    weight_bug("weights.bias_neighbour", "a bias of the layer before", "weight.neighbour", of_neighbour(bias)),
    weight_bug(
        "weights.rows",
        "rows of a projection shifted by one",
        "weight.permuted",
        changed(lambda w: w.roll(1, 0), matrix),
    ),
    weight_bug(
        "weights.columns",
        "heads of the output projection's input in reverse order",
        "weight.permuted",
        changed(columns_reversed, matrix, ends("o_proj.weight", "out_proj.weight", "dense.weight", "c_proj.weight")),
    ),
    weight_bug(
        "weights.cut",
        "the queries' rows cut out of a fused matrix in the wrong place",
        "weight.values weight.swapped weight.permuted",
        queries_of_keys,
    ),
    weight_bug(
        "weights.half",
        "a projection rounded to bfloat16 on its way",
        "precision.weight weight.values",
        changed(lambda w: w.bfloat16().to(w.dtype), matrix),
    ),
    weight_bug(
        "weights.float8",
        "a projection rounded to eight bits",
        "precision.weight weight.values",
        changed(float8, matrix),
    ),
    weight_bug(
        "weights.gain_offset",
        "one added to a gain in conversion",
        "weight.values norm.gain_offset",
        changed(lambda w: w + 1, gain),
    ),
    weight_bug(
        "weights.sinks",
        "the sinks of the attention are zero",
        "bias.left_out weight.values",
        changed(torch.zeros_like, ends("sinks")),
    ),
)
