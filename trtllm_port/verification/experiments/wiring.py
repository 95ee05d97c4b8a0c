"""Hypotheses about how a module calls its parts, and about positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.verification.experiments.experiment import Experiment, attribute, first_tensor, parameter
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant, fitted
from trtllm_port.verification.experiments.operations import units
from trtllm_port.verification.taps.names import is_input, module_of
from trtllm_port.verification.taps.rotary_tables import is_rotary, match_table

THETAS = (1e4, 1e5, 5e5, 1e6, 5e6, 1e7)
FEW = 4  # positions at which angles do not yet go round


def _parts(e: Experiment) -> list[tuple[str, nn.Module]]:
    names = {module: name for name, module in e.module.named_modules()}
    return [(names[unit], unit) for unit in units(e.module)]


def _identity(*args: Any, **kwargs: Any) -> Any:
    return first_tensor((*args, *kwargs.values()))


def left_out(e: Experiment) -> Iterator[Variant]:
    """A part is not called: what it gets goes on as it is."""
    for name, unit in _parts(e):
        yield Variant(
            detail=f"without calling `{name}`",
            compute=partial(e.run, patch=partial(attribute, unit, "forward", _identity)),
        )


def _alike(e: Experiment) -> Iterator[tuple[tuple[str, nn.Module], tuple[str, nn.Module]]]:
    parts = _parts(e)
    for i, (name, unit) in enumerate(parts):
        for other_name, other in parts[i + 1 :]:
            if type(unit) is type(other) and _shapes(unit) == _shapes(other):
                yield (name, unit), (other_name, other)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [value.shape for value in module.parameters()]


def swapped(e: Experiment) -> Iterator[Variant]:
    """Two parts of the same kind swapped."""
    for (name, unit), (other_name, other) in _alike(e):
        yield Variant(
            detail=f"with `{name}` and `{other_name}` swapped",
            cause=f"{name.removesuffix('_proj')} and {other_name.removesuffix('_proj')} are swapped",
            compute=partial(e.run, patch=partial(_swapped, unit, other)),
        )


@contextmanager
def _swapped(unit: nn.Module, other: nn.Module) -> Iterator[None]:
    forwards = unit.forward, other.forward
    with attribute(unit, "forward", forwards[1]), attribute(other, "forward", forwards[0]):
        yield


def mixed_up(e: Experiment) -> Iterator[Variant]:
    """One part called in place of another."""
    for pair in _alike(e):
        for (name, unit), (other_name, other) in (pair, pair[::-1]):
            yield Variant(
                detail=f"with `{other_name}` in place of `{name}`",
                compute=partial(e.run, patch=partial(attribute, unit, "forward", other.forward)),
            )


def inputs(e: Experiment) -> Iterator[Variant]:
    """A part gets what another part gets or returns, or what the module itself gets."""
    tensors = [("the module's input", e.input)] if e.input is not None else []
    for name, unit in _parts(e):
        if unit not in e._known:
            continue
        known, output = e._known[unit]
        for what, tensor in tensors:
            if tensor.shape == known.shape and tensor.dtype == known.dtype and not torch.equal(tensor, known):
                yield Variant(
                    detail=f"with {what} as the input of `{name}`",
                    compute=partial(e.run, patch=partial(_fed, unit, tensor)),
                )
        result = first_tensor(output)
        tensors += [(f"the input of `{name}`", known)]
        if result is not None:
            tensors += [(f"the output of `{name}`", result)]


def _fed(unit: nn.Module, tensor: Tensor) -> Any:
    forward = unit.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        if args:
            return forward(tensor, *args[1:], **kwargs)
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        return forward(**{**kwargs, name: tensor})

    return attribute(unit, "forward", changed)


POSITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "one too large": lambda p: p + 1,
    "one too small": lambda p: (p - 1).clamp(min=0),
    "two too large": lambda p: p + 2,
    "all zero": torch.zeros_like,
    "all one": torch.ones_like,
    "half as large": lambda p: p // 2,
    "rounded to bfloat16": lambda p: p.to(torch.bfloat16).to(p.dtype),
    "rounded to float16": lambda p: p.to(torch.float16).to(p.dtype),
}


def positions(e: Experiment) -> Iterator[Variant]:
    """Other positions: of the module itself, or of a part."""
    for detail, change in POSITIONS.items():
        if is_rotary(type(e.module).__name__):
            yield Variant(detail=f"with positions {detail}", compute=partial(_moved, e, change))
    for name, unit in _parts(e):
        is_target = is_input(e.target) and e.model.get_submodule(module_of(e.target)) is unit
        known = e.reference if is_target else e._known.get(unit, (None,))[0]
        if known is None or known.is_floating_point() or not _consecutive(known):
            continue
        for detail, change in POSITIONS.items():
            moved = change(known)
            yield Variant(
                detail=f"with the positions for `{name}` {detail}",
                compute=partial(_with_positions, e, unit, moved),
            )


def _with_positions(e: Experiment, unit: nn.Module, positions: Tensor) -> Tensor:
    is_target = is_input(e.target) and e.model.get_submodule(module_of(e.target)) is unit
    return positions if is_target else e.run(patch=partial(_fed, unit, positions))


def _consecutive(tensor: Tensor) -> bool:
    return tensor.ndim >= 1 and tensor.shape[-1] > 1 and bool((tensor.diff(dim=-1) == 1).all())


def _moved(e: Experiment, change: Callable[[Tensor], Tensor]) -> Tensor:
    def moved(value: Any) -> Any:
        is_ids = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
        return change(value) if is_ids else value

    return e.run(args=tuple(map(moved, e.args)), kwargs={name: moved(value) for name, value in e.kwargs.items()})


def _frequencies(e: Experiment) -> Tensor | None:
    frequencies = getattr(e.module, "inv_freq", None)
    return frequencies if is_rotary(type(e.module).__name__) and isinstance(frequencies, Tensor) else None


def _theta(e: Experiment) -> float | None:
    rope = getattr(e.config, "rope_parameters", None) or {}
    theta = rope.get("rope_theta")
    return float(theta) if theta else None


def thetas(e: Experiment) -> Iterator[Variant]:
    """Another base of the frequencies: f = theta ** (-2i / d), so another theta is a power of f."""
    frequencies, theta = _frequencies(e), _theta(e)
    if frequencies is None or theta is None:
        return

    def run(other: float) -> Tensor:
        changed = frequencies.double() ** (math.log(other) / math.log(theta))
        return e.run(patch=partial(parameter, e.module, "inv_freq", changed))

    best = _by_first_positions(e, run, 100.0, 1e9)
    for other in (*THETAS, best, float(f"{best:.4g}"), 2 * theta, theta / 2, 10 * theta, theta / 10):
        yield Variant(detail=f"with a theta of {other:.6g} instead of {theta:g}", compute=partial(run, other))


def scalings(e: Experiment) -> Iterator[Variant]:
    """Frequencies without the config's scaling, with another one, or a factor for the tables."""
    frequencies, theta = _frequencies(e), _theta(e)
    if frequencies is None:
        return

    def run(factor: float) -> Tensor:
        return e.run(patch=partial(parameter, e.module, "inv_freq", frequencies / factor))

    if theta is not None:
        exponents = torch.arange(len(frequencies), device=frequencies.device) / len(frequencies)
        plain = (1.0 / theta**exponents).to(frequencies.dtype)
        yield Variant(
            detail="without scaling", compute=partial(e.run, patch=partial(parameter, e.module, "inv_freq", plain))
        )
    best = _by_first_positions(e, run, 1 / 64, 64.0)
    for factor in (2.0, 4.0, 8.0, 0.5, best, float(f"{best:.4g}")):
        yield Variant(detail=f"with positions divided by {factor:.6g}", compute=partial(run, factor))
    scaling = getattr(e.module, "attention_scaling", None)
    if isinstance(scaling, float) and scaling != 1.0:
        for value in (1.0, scaling**2):
            yield Variant(
                detail=f"with tables times {value:.6g} instead of {scaling:.6g}",
                compute=partial(e.run, patch=partial(attribute, e.module, "attention_scaling", value)),
            )


def _by_first_positions(e: Experiment, run: Callable[[float], Tensor], low: float, high: float) -> float:
    """Fit a number by the first positions, where angles do not yet go round."""
    few = replace(e, targets=((e.target, e.port[:, :FEW], e.noise),), number=0)

    def first(x: float) -> Tensor:
        table = match_table(run(x), e.port)
        if table is None:
            raise ValueError("the tables have other shapes")
        return table[:, :FEW]

    return fitted(few, first, low, high, steps=40)


def half_tables(e: Experiment) -> Iterator[Variant]:
    """Angles in low precision: where they are made, or as an attention is given them."""
    frequencies = _frequencies(e)
    if frequencies is not None:
        for dtype in (torch.bfloat16, torch.float16):
            yield Variant(
                detail=f"with frequencies in {dtype}",
                compute=partial(
                    e.run, patch=partial(parameter, e.module, "inv_freq", frequencies.to(dtype).to(frequencies.dtype))
                ),
            )
    tables = e.kwargs.get("position_embeddings")
    if not isinstance(tables, tuple) or len(tables) != 2 or not all(isinstance(table, Tensor) for table in tables):
        return
    for dtype in (torch.bfloat16, torch.float16):
        half = [table.to(dtype).to(table.dtype) for table in tables]
        for name, pair in (
            ("cosines", (half[0], tables[1])),
            ("sines", (tables[0], half[1])),
            ("cosines and sines", tuple(half)),
        ):
            given = {**e.kwargs, "position_embeddings": pair}
            yield Variant(detail=f"with {name} in {dtype}", compute=partial(e.run, kwargs=given))


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(
        id="rope.theta",
        cause="wrong theta of the rotary embedding",
        look=(r"rotary_emb = ", r"RotaryEmbedding\("),
        variants=thetas,
    ),
    Hypothesis(
        id="rope.scaling",
        cause="wrong scaling of the rotary frequencies",
        look=(r"rotary_emb = ", r"RotaryEmbedding\("),
        variants=scalings,
    ),
    Hypothesis(id="positions", cause="wrong positions", look=(r"position_ids",), variants=positions),
    Hypothesis(
        id="rope.precision",
        cause="rotary angles in low precision",
        look=(r"rotary_embedding\(", r"rotary_emb"),
        variants=half_tables,
    ),
    Hypothesis(id="module.left_out", cause="a module is not called", look=(), variants=left_out),
    Hypothesis(id="module.swapped", cause="two modules are swapped", look=(), variants=swapped),
    Hypothesis(id="module.mixed_up", cause="a module is called in place of another", look=(), variants=mixed_up),
    Hypothesis(id="module.input", cause="a module gets the wrong input", look=(), variants=inputs),
)
