"""Hypotheses about single steps of a module: left out, in another order, in low precision; and about routers' weights.

T tokens, A experts of one token, X experts
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trtllm_port.verification.experiments.experiment import Experiment, attribute
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.experiments.operations import Operation, Replacement, operand, units
from trtllm_port.verification.taps.hooks import outputs_of

PURE = ("view", "reshape", "transpose", "permute", "contiguous", "expand", "unsqueeze", "squeeze", "clone", "detach")
SMALL_NUMBER = 1e-2  # a number that is added and is below this is an epsilon


def steps_left_out(e: Experiment) -> Iterator[Variant]:
    """An operation whose result is like one of its operands is not done: a limit, a norm, an offset."""
    for op in e.operations:
        if not isinstance(op.result, Tensor) or op.name in PURE:
            continue
        for place, value in enumerate(op.args[:2]):
            if isinstance(value, Tensor) and value.shape == op.result.shape and value.dtype == op.result.dtype:
                yield Variant(detail=f"without {named(op)}", compute=partial(e.replacing, op, operand(place)))


def named(op: Operation) -> str:
    return f"its `{op.name}`" + (f" (line {op.line} of its source)" if op.line else "")


def numbers(e: Experiment) -> Iterator[Variant]:
    """Another number is added: none, or one with the other sign."""
    for op in e.operations:
        if op.name in ("add", "sub") and op.number is not None and abs(op.number[1]) >= SMALL_NUMBER:
            place, now = op.number
            for value in (0.0, -now):

                def replaced(
                    function: Callable[..., Any],
                    args: tuple[Any, ...],
                    _kwargs: Any,
                    place: int = place,
                    x: float = value,
                ) -> Any:
                    return function(*(x if i == place else each for i, each in enumerate(args)))

                yield Variant(
                    detail=f"with {value:g} for {now:g} in {named(op)}", compute=partial(e.replacing, op, replaced)
                )


def parts_swapped(e: Experiment) -> Iterator[Variant]:
    """The parts that a tensor is cut into, in another order: halves by `chunk`, or every second feature."""
    for op in e.operations:
        if isinstance(op.result, tuple | list) and 2 <= len(op.result) <= 3 and _alike(op.result):
            for order in list(itertools.permutations(range(len(op.result))))[1:]:
                yield Variant(
                    detail=f"with the parts of {named(op)} in the order {order}",
                    compute=partial(e.replacing, op, _in_order(order)),
                )
    cuts = [op for op in e.operations if op.name == "getitem" and isinstance(op.result, Tensor)]
    for one, other in itertools.combinations(cuts, 2):
        if one.args[0] is other.args[0] and _alike((one.result, other.result)):
            changes: dict[Operation, Replacement] = {one: _indexed(other.args[1]), other: _indexed(one.args[1])}
            yield Variant(
                detail=f"with {named(one)} and {named(other)} swapped", compute=partial(e.replacing_all, changes)
            )


def _alike(parts: Any) -> bool:
    return all(isinstance(part, Tensor) and part.shape == parts[0].shape for part in parts)


def _in_order(order: tuple[int, ...]) -> Replacement:
    def replaced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parts = function(*args, **kwargs)
        return tuple(parts[index] for index in order)

    return replaced


def _indexed(index: Any) -> Replacement:
    return lambda _function, args, _kwargs: args[0][index]


def scores(e: Experiment) -> Iterator[Variant]:
    """Scores by a sigmoid instead of a softmax, or the reverse."""
    for op in e.operations:
        if op.name == "sigmoid" and isinstance(op.result, Tensor):
            change: Replacement = lambda _function, args, _kwargs: args[0].softmax(-1)  # noqa: E731  # one of two
            yield Variant(detail="with a softmax for its sigmoid", compute=partial(e.replacing, op, change))
        if op.name == "softmax" and isinstance(op.result, Tensor):
            change = lambda _function, args, _kwargs: args[0].sigmoid()  # noqa: E731
            yield Variant(detail="with a sigmoid for its softmax", compute=partial(e.replacing, op, change))


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the softmax of all experts' scores": lambda scores_TX, chosen_TA: scores_TX.softmax(-1).gather(-1, chosen_TA),
    "the softmax of the chosen experts' scores": lambda scores_TX, chosen_TA: scores_TX.gather(-1, chosen_TA).softmax(
        -1
    ),
    "the sigmoid of the scores": lambda scores_TX, chosen_TA: scores_TX.sigmoid().gather(-1, chosen_TA),
    "the scores themselves": lambda scores_TX, chosen_TA: scores_TX.gather(-1, chosen_TA),
}


def router_weights(e: Experiment) -> Iterator[Variant]:
    """Weights of the chosen experts that are made of the scores in another way than Hugging Face's."""
    with torch.no_grad():
        given = outputs_of(e.path, e.module, e.args, e.module.forward(*e.args, **e.kwargs))
    chosen = [x for x in given.values() if x.dtype == torch.int64 and x.shape == e.port.shape and x.ndim > 1]
    wide = [x for x in given.values() if x.is_floating_point() and x.ndim > 1 and x.shape[-1] > e.port.shape[-1]]
    if not chosen or not wide or not e.port.is_floating_point():
        return
    for name, formula in FORMULAS.items():
        weights_TA = formula(wide[0], chosen[0])
        for words, value in (("", weights_TA), (", made to sum to one", weights_TA / weights_TA.sum(-1, keepdim=True))):
            yield Variant(detail=f"with weights that are {name}{words}", compute=partial(_same, value))
            factor = _factor(e.port, value)
            if torch.allclose(value, e.reference.to(value)):
                continue  # Hugging Face's own, and another multiplier is a bug of its own
            yield Variant(
                detail=f"with weights that are {name}{words}, times {factor:.6g}",
                compute=partial(_same, factor * value),
            )


def _same(value: Tensor) -> Tensor:
    return value


def _factor(port: Tensor, value: Tensor) -> float:
    return float((port.double() * value.double()).sum() / value.double().square().sum())


def part_activations(e: Experiment, functions: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[Variant]:
    """Another function in the place of a part that has no parameters."""
    for unit in units(e.module):
        if next(unit.parameters(), None) is not None or next(unit.children(), None) is not None:
            continue
        for name, function in functions.items():
            yield Variant(
                detail=f"with {name} for its {type(unit).__name__}",
                compute=partial(e.run, patch=partial(attribute, unit, "forward", function)),
            )


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(
        id="router.weights",
        cause="the weights of the chosen experts are made in another way",
        look=(r"softmax\(|sigmoid\(", r"topk\("),
        variants=router_weights,
    ),
    Hypothesis(
        id="router.scores",
        cause="a softmax for a sigmoid, or the reverse",
        look=(r"softmax\(|sigmoid\(",),
        variants=scores,
    ),
    Hypothesis(
        id="parts.swapped",
        cause="the parts of a tensor are in the wrong order",
        look=(r"chunk\(|split\(|::2\]",),
        variants=parts_swapped,
    ),
    Hypothesis(id="number", cause="another number is added", look=(r"[+-] ?\d",), variants=numbers),
)
GENERAL: tuple[Hypothesis, ...] = (
    Hypothesis(id="step.left_out", cause="a step is left out", variants=steps_left_out, general=True),
)
