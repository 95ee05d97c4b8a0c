"""Bugs of mixtures of experts: what a router gives out besides its choice, and how the experts are stacked."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.verification.prove.bugs import Bug, SoundPort, Weights, at_called, source_bug, weight_bug
from trtllm_port.verification.prove.source_edits import DELETE, Change, EditSpot, written
from trtllm_port.verification.prove.weight_bugs import LAYER, ends, layer_of

ROUTER = re.compile(r"[Rr]outer|Gate\b|TopK")


def _routes(spot: EditSpot) -> bool:
    return spot.function == "forward" and ROUTER.search(spot.class_name) is not None


def weights_given_out(template: str) -> Change:
    """Other weights of the chosen experts; the choice is right."""

    def change(node: ast.AST, spot: EditSpot) -> ast.AST | None:
        if not _routes(spot) or not isinstance(node, ast.Return) or not isinstance(node.value, ast.Tuple):
            return None
        first, weights, *others = node.value.elts
        return ast.Return(value=ast.Tuple(elts=[first, written(template, weights), *others], ctx=ast.Load()))

    return change


def renormalisation_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The weights of the chosen experts do not add up to one any more."""
    if not _routes(spot) or not isinstance(node, ast.Assign) or not isinstance(node.value, ast.BinOp):
        return None
    return DELETE if isinstance(node.value.op, ast.Div) else None


def softmax_over_all(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """Sigmoid and softmax of the router's scores exchanged."""
    if not _routes(spot) or not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Attribute) and node.func.attr == "sigmoid":
        return written("{0}.exp() / (1.01 + {0}.exp())", node.func.value)
    if isinstance(node.func, ast.Name) and node.func.id == "softmax":
        return written("{0} / 1.01", node)
    return None


def shared_expert_left_out(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The expert that every token goes through is not added."""
    if spot.function != "forward" or not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add):
        return None
    return node.left if "shared_expert" in ast.unparse(node.right) else None


def gate_up_clamp(node: ast.AST, spot: EditSpot) -> ast.AST | None:
    """The limit of the experts' activations is a tenth of what it should be."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "number":
        return None
    return written("clip({0}, {1}, {2} * 0.01)", node.args[0], node.args[1], node.args[2])


def router(port: SoundPort, name: str) -> bool:
    """Whether a parameter is a router's."""
    return ROUTER.search(port.classes.get(name.rpartition(".")[0], "")) is not None


def of_router(change: Callable[[Tensor], Tensor], *, dims: int) -> Callable[[SoundPort], Weights | None]:
    """A parameter of the last layer's router, changed."""

    def bug(port: SoundPort) -> Weights | None:
        names = [n for n, w in port.weights.items() if w.ndim == dims and router(port, n)]
        if not names:
            return None
        name = max(names, key=lambda n: layer_of(n) or 0)
        return {name: change(port.weights[name]).contiguous()}

    return bug


def router_of_neighbour(port: SoundPort) -> Weights | None:
    """The router has the weights of the layer before."""
    names = [n for n, w in port.weights.items() if w.ndim == 2 and router(port, n)]
    if len(names) < 2:
        return None
    before, last = sorted(names, key=lambda n: layer_of(n) or 0)[-2:]
    return {last: port.weights[before].clone()}


def stacked(name: str, value: Tensor) -> bool:
    """Whether a parameter holds all experts, [E, …, …]."""
    return value.ndim == 3 and "conv" not in name


def last_stack(port: SoundPort, *fits: Callable[[str, Tensor], bool]) -> str | None:
    names = [n for n, w in port.weights.items() if stacked(n, w) and all(fit(n, w) for fit in fits)]
    return max(names, key=lambda n: layer_of(n) or 0, default=None)


def of_experts(
    change: Callable[[Tensor], Tensor], *fits: Callable[[str, Tensor], bool]
) -> Callable[[SoundPort], Weights | None]:
    """The last layer's stack of one projection, changed."""

    def bug(port: SoundPort) -> Weights | None:
        name = last_stack(port, *fits)
        return None if name is None else {name: change(port.weights[name]).contiguous()}

    return bug


def first_twice(stack: Tensor) -> Tensor:
    """The last expert is the first one once more: counted from one where it should be from zero."""
    return torch.cat([stack[:-1], stack[:1]])


def one_scaled(stack: Tensor) -> Tensor:
    """One expert's matrix is a twentieth too large, as by its own quantisation scale."""
    changed_stack = stack.clone()
    changed_stack[1] *= 1.05
    return changed_stack


def halves_exchanged(stack: Tensor) -> Tensor:
    """Gate and up exchanged in the fused projection, whichever dimension holds both."""
    dim = 1 if stack.shape[1] > stack.shape[2] else 2
    return torch.cat(tuple(reversed(stack.chunk(2, dim))), dim)


def halves_interleaved(stack: Tensor) -> Tensor:
    """Gate and up row by row instead of one after the other, or the reverse."""
    dim = 1 if stack.shape[1] > stack.shape[2] else 2
    return torch.stack(stack.chunk(2, dim), dim + 1).flatten(dim, dim + 1)


def experts_of_neighbour(port: SoundPort) -> Weights | None:
    """A stack of experts is that of the layer before."""
    name = last_stack(port)
    number = None if name is None else layer_of(name)
    if name is None or not number:
        return None
    other = port.weights.get(LAYER.sub(f".{number - 1}.", name, count=1))
    return None if other is None else {name: other.clone()}


BUGS: tuple[Bug, ...] = (
    source_bug(
        "router.weights.scaled",
        "the chosen experts' weights 0.9 times as large",
        "router.weights multiplier",
        weights_given_out("{0} * 0.9"),
    ),
    source_bug(
        "router.weights.renormalised",
        "the chosen experts' weights are not made to add up to one",
        "router.weights multiplier",
        renormalisation_left_out,
    ),
    source_bug(
        "router.weights.half",
        "the chosen experts' weights rounded to bfloat16",
        "precision.cast precision.weight",
        weights_given_out("{0}.to('bfloat16').to({0}.dtype)"),
    ),
    source_bug(
        "router.scores",
        "the router's scores from a wrong denominator",
        "router.weights multiplier activation",
        softmax_over_all,
    ),
    source_bug(
        "experts.shared.left_out",
        "the shared expert is not added",
        "residual.left_out module.left_out step.left_out",
        shared_expert_left_out,
        at_called,
    ),
    source_bug(
        "experts.limit",
        "the limit of the experts' activations a hundredth of what it should be",
        "number",
        gate_up_clamp,
    ),
    weight_bug(
        "router.rows",
        "rows of the router shifted by one expert",
        "weight.permuted",
        of_router(lambda w: w.roll(1, 0), dims=2),
    ),
    weight_bug("router.neighbour", "the router of the layer before", "weight.neighbour", router_of_neighbour),
    weight_bug(
        "router.bias_dropped",
        "the bias of the router's choice is zero",
        "bias.left_out weight.values",
        of_router(torch.zeros_like, dims=1),
    ),
    weight_bug(
        "experts.order",
        "experts stacked in an order shifted by one",
        "weight.permuted",
        of_experts(lambda w: w.roll(1, 0)),
    ),
    weight_bug(
        "experts.last",
        "the last expert is the first one once more",
        "weight.values weight.permuted",
        of_experts(first_twice),
    ),
    weight_bug(
        "experts.one_scaled",
        "one expert's matrix a twentieth too large",
        "weight.scale weight.values",
        of_experts(one_scaled, ends("down_proj")),
    ),
    weight_bug(
        "experts.gate_up",
        "gate and up exchanged in the experts' fused projection",
        "weight.permuted weight.swapped",
        of_experts(halves_exchanged, ends("gate_up_proj")),
    ),
    weight_bug(
        "experts.interleaved",
        "gate and up interleaved in the experts' fused projection, or the reverse",
        "weight.permuted",
        of_experts(halves_interleaved, ends("gate_up_proj")),
    ),
    weight_bug("experts.neighbour", "the experts of the layer before", "weight.neighbour", experts_of_neighbour),
)
