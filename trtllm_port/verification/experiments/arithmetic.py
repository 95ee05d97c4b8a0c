"""Hypotheses about a module's own statements: numbers, operands and functions of its operations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trtllm_port.verification.experiments.experiment import Experiment, attribute
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant, config_numbers, fitted
from trtllm_port.verification.experiments.operations import Operation, Replacement, operand
from trtllm_port.verification.experiments.steps import part_activations

SMALL = 1e-2  # a number that is added and is below this is an epsilon
SUM = (r"\bresidual\b.*\+|\+.*\bresidual\b", r"\+ hidden_states|hidden_states \+", r"\+")  # of hidden states
CAP = re.compile(r"soft_?cap")
MADE_OF = re.compile(r"scal|multiplier|factor|dim|size|alpha|softcap")  # names of what multipliers are made of
SCORES = 4  # dimensions of attention scores
EPSILONS = (0.0, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "relu squared": lambda x: functional.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "no activation": lambda x: x,
}


def with_operand(place: int, change: Callable[[Any], Any]) -> Replacement:
    """Change an operand."""
    return lambda function, args, kwargs: function(
        *(change(value) if i == place else value for i, value in enumerate(args)), **kwargs
    )


def always(value: Any) -> Callable[[Any], Any]:
    """Another value, whatever the operand is."""
    return lambda _value: value


def applied(change: Callable[[Tensor], Tensor]) -> Replacement:
    """Another function of the first operand."""
    return lambda _function, args, _kwargs: change(args[0])


def is_scores(operation: Operation) -> bool:
    """Whether the result has the shape of attention scores."""
    result = operation.result
    return isinstance(result, Tensor) and result.ndim == SCORES and result.shape[-1] == result.shape[-2]


def epsilons(e: Experiment) -> Iterator[Variant]:
    """Another epsilon: a small number that is added, or the argument of a normalisation."""
    for op in e.operations:
        if op.name in ("layer_norm", "rms_norm"):
            now, change = float(_norm_arguments(op.args, dict(op.kwargs))["eps"] or 0.0), _norm_epsilon
        elif op.name == "add" and op.number is not None and 0 < op.number[1] < SMALL:
            now, change = op.number[1], partial(_added, op.number[0])
        else:
            continue

        def run(x: float, op: Operation = op, change: Callable[[float], Replacement] = change) -> Tensor:
            return e.replacing(op, change(x))

        for value in itertools.chain((factor * now for factor in (10, 0.1, 100, 0.01)), EPSILONS, _epsilon(e, run)):
            yield Variant(detail=f"with an epsilon of {value:.3g} instead of {now:g}", compute=partial(run, value))


def _norm_epsilon(value: float) -> Replacement:
    return _norm(eps=value)


def _added(place: int, value: float) -> Replacement:
    return with_operand(place, always(value))


def _epsilon(e: Experiment, run: Callable[[float], Tensor]) -> Iterator[float]:
    yield float(f"{fitted(e, run, 1e-9, 1.0):.3g}")


def _norm_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    return {"weight": None, "bias": None, "eps": 1e-5} | given


def _norm(**changes: Any) -> Replacement:
    """A normalisation with other arguments; a function makes an argument of the old one."""

    def replaced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _norm_arguments(args, kwargs)
        for name, change in changes.items():
            given[name] = change(given[name]) if callable(change) else change
        if function.__name__ == "rms_norm":
            del given["bias"]
        return function(**given)

    return replaced


def _gain_operations(e: Experiment) -> Iterator[tuple[Operation, int]]:
    """Products with a vector over the features."""
    for op in e.operations:
        if op.name == "mul" and len(op.args) == 2 and all(isinstance(value, Tensor) for value in op.args):
            for place in (0, 1):
                vector, other = op.args[place], op.args[1 - place]
                if vector.ndim == 1 and other.ndim > 1 and vector.shape[-1] == other.shape[-1]:
                    yield op, place


def gain_offsets(e: Experiment) -> Iterator[Variant]:
    """A gain of 1 + w instead of w, or the reverse."""
    for op in e.operations:
        if op.name in ("layer_norm", "rms_norm") and _norm_arguments(op.args, dict(op.kwargs))["weight"] is not None:
            yield Variant(
                detail="with a gain of 1 + weight instead of weight",
                compute=partial(e.replacing, op, _norm(weight=lambda w: 1 + w)),
            )
        if op.name == "add" and op.number is not None and op.number[1] == 1.0 and _is_vector(op.result):
            place = op.number[0]
            yield Variant(
                detail="with a gain of weight instead of 1 + weight",
                compute=partial(e.replacing, op, operand(1 - place)),
            )
    for op, place in _gain_operations(e):
        yield Variant(
            detail="with a gain of 1 + weight instead of weight",
            compute=partial(e.replacing, op, with_operand(place, lambda w: 1 + w)),
        )


def gains_left_out(e: Experiment) -> Iterator[Variant]:
    """No gain at all."""
    detail = "without its gain"
    for op in e.operations:
        if op.name in ("layer_norm", "rms_norm"):
            yield Variant(detail=detail, compute=partial(e.replacing, op, _norm(weight=torch.ones_like)))
    for op, place in _gain_operations(e):
        yield Variant(detail=detail, compute=partial(e.replacing, op, operand(1 - place)))


def _is_vector(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 1


def other_normalisations(e: Experiment) -> Iterator[Variant]:
    """The mean is subtracted, or it is not."""
    for op in e.operations:
        if op.name == "layer_norm":
            yield Variant(
                detail="without subtracting the mean",
                compute=partial(e.replacing, op, _without_mean),
            )


def _without_mean(_function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    given = _norm_arguments(args, kwargs)
    normed: Tensor = functional.rms_norm(given["input"], given["normalized_shape"], given["weight"], given["eps"])
    return normed if given["bias"] is None else normed + given["bias"]


def multipliers(e: Experiment, *, scores: bool) -> Iterator[Variant]:
    """A number that something is multiplied by or divided by: left out, or another."""
    for op in e.operations:
        if op.name not in ("mul", "div") or op.number is None or is_scores(op) != scores:
            continue
        place, now = op.number
        yield Variant(
            detail=f"without the factor {now if op.name == 'mul' else 1 / now:.6g}",
            compute=partial(e.replacing, op, operand(1 - place)),
        )

        def run(x: float, op: Operation = op, place: int = place) -> Tensor:
            return e.replacing(op, with_operand(place, lambda _: x))

        for name, value in (("its square", now**2), ("its inverse", 1 / now), ("its root", abs(now) ** 0.5)):
            yield Variant(detail=f"with {name}, {value:.6g}, for {now:.6g}", compute=partial(run, value))
        best = fitted(e, run, now / 8, now * 8) if now > 0 else now
        yield Variant(
            detail=f"with a factor of {_named(e, best)} instead of {now:.6g}",
            compute=partial(run, best),
        )


def _named(e: Experiment, value: float) -> str:
    """A number, with what in the config it may come from."""
    for name, number in config_numbers(e):
        if not MADE_OF.search(name):
            continue  # another number of the config that happens to fit
        for text, made in ((name, number), (f"1/{name}", 1 / number), (f"1/sqrt({name})", number**-0.5)):
            if abs(made / value - 1) < 1e-6:
                return f"{value:.6g} ({text})"
    return f"{value:.6g}"


def one_factor(e: Experiment) -> Iterator[Variant]:
    """Everything is multiplied by one number."""
    if not e.reference.is_floating_point() or e.reference.shape != e.port.shape:
        return
    reference = e.reference.to(torch.float64)
    factor = float((e.port.to(torch.float64) * reference).sum() / reference.square().sum())
    yield Variant(detail=f"times {_named(e, factor) if factor > 0 else factor}", compute=lambda: reference * factor)


def sums(e: Experiment) -> Iterator[tuple[Operation, int, int]]:
    """Additions of two tensors of the same shape, that of the hidden states; an operand, and which addition it is."""
    number = 0
    for op in e.operations:
        if op.name == "add" and len(op.args) == 2 and all(isinstance(value, Tensor) for value in op.args) and op.once:
            first, second = op.args
            if first.shape == second.shape and first.ndim == 3 and first.is_floating_point():
                yield op, 0, number
                yield op, 1, number
                number += 1


def _which(place: int, number: int) -> str:
    return (
        f"the {'first' if place == 0 else 'second'} summand of its {['first', 'second', 'third'][min(number, 2)]} sum"
    )


def residuals_left_out(e: Experiment) -> Iterator[Variant]:
    """One of two summands is left out."""
    for op, place, number in sums(e):
        yield Variant(
            number=number,
            detail=f"without {_which(place, number)}",
            compute=partial(e.replacing, op, operand(1 - place)),
        )


def residuals_scaled(e: Experiment) -> Iterator[Variant]:
    """One of two summands has a factor."""
    for op, place, number in sums(e):

        def run(x: float, op: Operation = op, place: int = place) -> Tensor:
            return e.replacing(op, with_operand(place, lambda value: value * x))

        best = fitted(e, run, 1 / 32, 32.0)
        yield Variant(
            number=number,
            detail=f"with {_which(place, number)} times {_named(e, best)}",
            compute=partial(run, best),
        )


def residuals_elsewhere(e: Experiment) -> Iterator[Variant]:
    """A summand is another intermediate result."""
    for op, place, number in sums(e):
        now = op.args[place]
        for name, value in intermediates(e, before=op.index):
            if value.shape == now.shape and value is not now and not torch.equal(value, now):
                yield Variant(
                    number=number,
                    detail=f"with {name} as {_which(place, number)}",
                    compute=partial(e.replacing, op, with_operand(place, always(value))),
                )


def intermediates(e: Experiment, before: int) -> Iterator[tuple[str, Tensor]]:
    """Return the module's input, and the results of its own operations so far."""
    if e.input is not None:
        yield "the module's input", e.input
    for op in e.operations:
        if op.index < before:
            for number, value in enumerate(op.args):
                if isinstance(value, Tensor) and value.is_floating_point():
                    yield f"operand {number} of its `{op.name}` {op.index}", value
            if isinstance(op.result, Tensor) and op.result.is_floating_point():
                yield f"the result of its `{op.name}` {op.index}", op.result


def activations(e: Experiment) -> Iterator[Variant]:
    """Another activation: the whole module, or one operation of it."""
    is_leaf = next(e.module.parameters(), None) is None and next(e.module.children(), None) is None
    if is_leaf and e.input is not None and e.input.shape == e.port.shape:
        for name, function in ACTIVATIONS.items():
            yield Variant(detail=f"with {name}", compute=partial(function, e.input))
        return
    yield from part_activations(e, ACTIVATIONS)
    for op in e.operations:
        if op.name in ("silu", "gelu", "relu", "tanh", "sigmoid") and not is_scores(op):
            for name, function in ACTIVATIONS.items():
                yield Variant(
                    detail=f"with {name} for {op.name}",
                    compute=partial(e.replacing, op, applied(function)),
                )


def soft_caps(e: Experiment) -> Iterator[Variant]:
    """No soft cap, c · tanh(x / c) is x, or another c; an attention hands its own to the function it calls."""
    for op in e.operations:
        if op.name == "tanh":
            yield Variant(detail="without its soft cap", compute=partial(e.replacing, op, operand(0)))
    for name, now in vars(e.module).items():
        if CAP.search(name) and isinstance(now, float) and now > 0:

            def run(x: float | None, name: str = name) -> Tensor:
                return e.run(patch=partial(attribute, e.module, name, x))

            yield Variant(detail=f"without its soft cap of {now:.6g}", compute=partial(run, None))
            best = fitted(e, run, now / 32, now * 32)
            yield Variant(
                detail=f"with a soft cap of {best:.6g} instead of {now:.6g}",
                cause="the soft cap has another value",
                compute=partial(run, best),
            )


MULTIPLIER = Hypothesis(
    id="multiplier",
    cause="a multiplier is wrong or left out",
    look=(r"multiplier|scal(e|ing)|return",),
    variants=lambda e: multipliers(e, scores=False),
)
TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(id="norm.epsilon", cause="wrong epsilon", look=(r"eps",), variants=epsilons),
    Hypothesis(
        id="norm.gain_offset",
        cause="wrong convention of the gain, weight or 1 + weight",
        look=(r"offset", r"Norm\("),
        variants=gain_offsets,
    ),
    Hypothesis(id="norm.gain_left_out", cause="gain dropped", look=(r"weight", r"Norm\("), variants=gains_left_out),
    Hypothesis(id="norm.mean", cause="a layer norm is an RMS norm", look=(r"Norm\(",), variants=other_normalisations),
    Hypothesis(id="soft_cap", cause="soft cap left out", look=(r"softcap|tanh",), variants=soft_caps),
    Hypothesis(
        id="activation",
        cause="wrong activation",
        look=(r"Activation\(", r"act", r"gelu|silu|relu"),
        variants=activations,
    ),
    Hypothesis(
        id="attention.scale",
        cause="wrong scale of the attention scores",
        look=(r"scale=", r"scaling"),
        variants=lambda e: multipliers(e, scores=True),
    ),
    MULTIPLIER,
    Hypothesis(
        id="residual.left_out",
        cause="a summand (a residual) is left out",
        look=SUM,
        variants=residuals_left_out,
    ),
)
LATE: tuple[Hypothesis, ...] = (
    replace(MULTIPLIER, variants=one_factor, general=True),  # the same bug, where no operation of the module shows it
    Hypothesis(
        id="residual.source",
        cause="a summand is taken from the wrong place",
        look=(r"residual = ", *SUM),
        variants=residuals_elsewhere,
        general=True,
    ),
    Hypothesis(
        id="residual.scale",
        cause="a summand has a wrong factor",
        look=SUM,
        variants=residuals_scaled,
        general=True,
    ),
)
