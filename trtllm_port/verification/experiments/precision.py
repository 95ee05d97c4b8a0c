"""Hypotheses about precision: a step in 16 bits that Hugging Face computes in more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.verification.experiments.experiment import Experiment, attribute
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.experiments.operations import Replacement, operand, units
from trtllm_port.verification.experiments.steps import PURE, named

HALVES = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}  # and half a unit of their last place
ROUNDED = 8.0  # an error of rounding is so many halves of a unit at most, and at least one over this many


def half_softmax(e: Experiment) -> Iterator[Variant]:
    """Softmax in the module's dtype."""
    for op in e.operations:
        if op.name == "softmax" and op.kwargs.get("dtype") is torch.float32 and op.args[0].dtype != torch.float32:

            def replaced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return function(*args, **{name: value for name, value in kwargs.items() if name != "dtype"})

            yield Variant(
                detail=f"with its softmax in {op.args[0].dtype}",
                compute=partial(e.replacing, op, replaced),
            )


def half_steps(e: Experiment) -> Iterator[Variant]:
    """No cast to float32."""
    for op in e.operations:
        if op.name in ("float", "to") and isinstance(op.result, Tensor) and op.result.dtype == torch.float32:
            given = op.args[0]
            if given.is_floating_point() and given.dtype != torch.float32 and given.ndim > 1:
                yield Variant(
                    detail=f"in {given.dtype} instead of float32",
                    compute=partial(e.replacing, op, operand(0)),
                )


def rounded_steps(e: Experiment) -> Iterator[Variant]:
    """What a step, or a part, gives is rounded to 16 bits; tried where the error is of that size."""
    before = e.error(e.reference)
    for dtype, half in HALVES.items():
        if not half / ROUNDED <= before <= half * ROUNDED or e.port.dtype == dtype:
            continue
        words = f"rounded to {str(dtype).removeprefix('torch.')}"
        for op in e.operations:
            if isinstance(op.result, Tensor) and op.result.is_floating_point() and op.name not in PURE:
                yield Variant(
                    detail=f"with the result of {named(op)} {words}",
                    cause=f"a result is {words}",
                    compute=partial(e.replacing, op, _rounding(dtype)),
                )
        for unit in units(e.module):
            yield Variant(
                detail=f"with the output of its {type(unit).__name__} {words}",
                cause=f"a result is {words}",
                compute=partial(e.run, patch=partial(_rounded_part, unit, dtype)),
            )


def _rounding(dtype: torch.dtype) -> Replacement:
    def replaced(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = function(*args, **kwargs)
        return result.to(dtype).to(result.dtype)

    return replaced


def _rounded_part(unit: nn.Module, dtype: torch.dtype) -> Any:
    forward = unit.forward

    def rounded(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if isinstance(output, tuple):
            return (output[0].to(dtype).to(output[0].dtype), *output[1:])
        return output.to(dtype).to(output.dtype)

    return attribute(unit, "forward", rounded)


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(id="precision.softmax", cause="softmax in low precision", look=(r"softmax",), variants=half_softmax),
    Hypothesis(
        id="precision.cast",
        cause="a step that Hugging Face computes in float32 runs in low precision",
        look=(r"float\(\)|\.to\(",),
        variants=half_steps,
    ),
    Hypothesis(
        id="precision.cast",
        cause="a result is rounded to 16 bits",
        look=(r"\.to\(|float\(\)|half|bfloat16|float16",),
        variants=rounded_steps,
    ),
)
