"""In words: how a parameter of the port differs from Hugging Face's, by bits, but where something was computed.

P the port's tensor, R Hugging Face's in its data type
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trtllm_port.verification.judge.metrics import HALVES
from trtllm_port.verification.taps.layer_groups import LAYER_NUMBER
from trtllm_port.verification.taps.names import parent_of

SHOWN = 4  # numbers of rows, experts and so on that are named
ROUNDINGS = 8  # so many may lie between what two sides compute
MOST = 1.0 - 1e-9  # all but one
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "-exp": lambda x: -torch.exp(x),
    "log": torch.log,
    "reciprocal": torch.reciprocal,
    "1 +": lambda x: 1 + x,
    "square": torch.square,
    "square root": torch.sqrt,
}


@dataclass(frozen=True, kw_only=True)
class Law:
    """How a tensor comes from Hugging Face's.

    Attributes:
        id: of the kind of cause.
        words: that follow the parameter's name.
    """

    id: str
    words: str


@dataclass(frozen=True, kw_only=True)
class ParameterPair:
    """The two sides of a parameter.

    Attributes:
        name: of the parameter; "" where it is a part of one.
        port, reference: its values, of one shape and data type.
        others: Hugging Face's other tensors of that shape, with what they are called; read once.
    """

    name: str
    port: Tensor = field(repr=False)
    reference: Tensor = field(repr=False)
    others: Iterable[tuple[str, Tensor]] = field(repr=False)


def same_bits(port: Tensor, reference: Tensor) -> bool:
    """Whether two tensors are the same in the coarser of their data types."""
    if port.is_floating_point() and reference.is_floating_point() and port.dtype != reference.dtype:
        coarser = max(port.dtype, reference.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        port, reference = port.to(coarser), reference.to(coarser)
    return torch.equal(port, reference.to(port))


def law_of(pair: ParameterPair) -> Law:
    """Say how the port's tensor comes from Hugging Face's; the two differ."""
    for law in LAWS:
        found = law(pair)
        if found is not None:
            return found
    error = float((pair.port.double() - pair.reference.double()).norm())
    norm = float(pair.reference.double().norm())
    words = f"has other values, {error / norm:.3g} of Hugging Face's norm away" if norm else "is zero in Hugging Face"
    return Law(id="weight.values", words=words)


def _constant(pair: ParameterPair) -> Law | None:
    value = float(pair.port.flatten()[0])
    if pair.port.numel() < 2 or not bool((pair.port == pair.port.flatten()[0]).all()):
        return None
    words = {0.0: "is all zeros", 1.0: "is all ones"}.get(value, f"is {value:.6g} everywhere")
    if pair.name.endswith("bias"):
        return Law(id="bias.left_out", words=words)
    is_gain = pair.port.ndim == 1 and pair.name.endswith("weight") and value in (0.0, 1.0)
    return Law(id="norm.gain_left_out" if is_gain else "weight.values", words=words)


def _another(pair: ParameterPair) -> Law | None:
    for name, other in pair.others:
        if not torch.equal(pair.port, other):
            continue
        if LAYER_NUMBER.sub("*", name) == LAYER_NUMBER.sub("*", pair.name):
            return Law(id="weight.neighbour", words=f"is Hugging Face's `{name}`, of another layer")
        beside = parent_of(parent_of(name)) == parent_of(parent_of(pair.name)) or parent_of(name) == parent_of(
            pair.name
        )
        tied = not beside or not LAYER_NUMBER.search(pair.name)
        return Law(id="weight.tied" if tied else "weight.swapped", words=f"is Hugging Face's `{name}`")
    return None


def _transposed(pair: ParameterPair) -> Law | None:
    if pair.port.ndim < 2 or pair.port.shape[-1] != pair.port.shape[-2]:
        return None
    if not torch.equal(pair.port, pair.reference.transpose(-1, -2)):
        return None
    return Law(id="weight.transposed", words="is Hugging Face's transposed")


def _permuted(pair: ParameterPair) -> Law | None:
    for dim, size in enumerate(pair.port.shape):
        order = order_along(pair.port, pair.reference, dim) if size > 1 else None
        if order is not None:
            what = "entries" if pair.port.ndim == 1 else _axis(dim, pair.port.ndim)
            return Law(id="weight.permuted", words=f"has Hugging Face's {what} in another order: {_said(order)}")
    return None


def _axis(dim: int, dims: int) -> str:
    if dims == 2:
        return ("rows", "columns")[dim]
    return f"parts along dimension {dim}"


def order_along(port: Tensor, reference: Tensor, dim: int) -> list[int] | None:
    """For each part of the port's along a dimension, which of Hugging Face's it is; None if they are no others."""
    places: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(reference, dim)):
        places.setdefault(digest, index)
    order = []
    for digest in _digests(port, dim):
        if digest not in places:
            return None
        order.append(places[digest])
    return order


def _digests(tensor: Tensor, dim: int) -> Iterator[bytes]:
    for part in tensor.unbind(dim):
        flat = part.contiguous().flatten().view(torch.uint8)
        yield hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).digest()


def _said(order: Sequence[int]) -> str:
    """An order in a few words."""
    count = len(order)
    if len(set(order)) < count:
        lost = sorted(set(range(count)) - set(order))
        return f"some are there twice, {_some(lost)} not at all"
    if order[0] and all(place == (index + order[0]) % count for index, place in enumerate(order)):
        down = min(order[0], count - order[0])
        return f"shifted by {down}"
    for block in (size for size in range(count, 0, -1) if count % size == 0):
        firsts = order[::block]
        inside = (order[i] == order[i - i % block] + i % block for i in range(count))
        if block > 1 and all(first % block == 0 for first in firsts) and all(inside):
            return f"blocks of {block} in the order {_some([first // block for first in firsts])}"
    if order == list(reversed(range(count))):
        return "reversed"
    return f"{_some(order)}"


def _some(numbers: Sequence[int]) -> str:
    more = "" if len(numbers) <= SHOWN else " …"
    return " ".join(str(number) for number in numbers[:SHOWN]) + more


def _scaled(pair: ParameterPair) -> Law | None:
    port, reference = pair.port.double(), pair.reference.double()
    power = float(reference.square().sum())
    factor = float((port * reference).sum()) / power if power else 0.0
    if factor and _close(pair, port, factor * reference):
        return Law(id="weight.scale", words=f"is {factor:.6g} times Hugging Face's")
    for dim in range(port.ndim if port.ndim > 1 else 0):
        others = [each for each in range(port.ndim) if each != dim]
        factors = (port * reference).sum(others, keepdim=True) / reference.square().sum(others, keepdim=True)
        if bool(factors.isfinite().all()) and _close(pair, port, factors * reference):
            low, high = float(factors.min()), float(factors.max())
            what = f"each of its {_axis(dim, port.ndim)} times its own factor, {low:.4g} to {high:.4g}"
            return Law(id="weight.scale", words=f"is Hugging Face's with {what}")
    return None


def _function(pair: ParameterPair) -> Law | None:
    for name, function in FUNCTIONS.items():
        if _close(pair, pair.port.double(), function(pair.reference.double())):
            is_gain = name == "1 +" and pair.port.ndim == 1 and pair.name.endswith("weight")
            what = "1 + Hugging Face's" if name == "1 +" else f"{name} of Hugging Face's"
            return Law(id="norm.gain_offset" if is_gain else "weight.values", words=f"is {what}")
    return None


def _close(pair: ParameterPair, port: Tensor, made: Tensor) -> bool:
    limit = ROUNDINGS * torch.finfo(pair.port.dtype).eps
    return bool(((port - made).abs() <= limit * made.abs().maximum(port.abs())).all())


def _rounded(pair: ParameterPair) -> Law | None:
    for dtype in HALVES:
        if pair.port.dtype != dtype and torch.equal(pair.port, pair.reference.to(dtype).to(pair.port)):
            name = str(dtype).removeprefix("torch.")
            return Law(id="precision.weight", words=f"is Hugging Face's rounded to {name}")
    return None


def _part(pair: ParameterPair, most: float) -> Law | None:
    """Something is wrong with some rows, columns or experts only, no more than a share of them."""
    differs = pair.port != pair.reference
    if differs.ndim < 2 and int(differs.sum()) < 2:
        return None
    shares = []
    for dim, size in enumerate(differs.shape):
        wrong = differs.movedim(dim, 0).reshape(size, -1).any(1).nonzero().flatten()
        if len(wrong) < size:
            shares.append((len(wrong) / size, dim, wrong))
    share, dim, wrong = min(shares, key=lambda each: each[:2], default=(1.0, 0, differs))
    if share > most:
        return None
    numbers = wrong.tolist()
    one = len(numbers) == 1 and pair.port.ndim > 1
    sides = [
        side.select(dim, numbers[0]) if one else side.index_select(dim, wrong) for side in (pair.port, pair.reference)
    ]
    twins = [i for i, each in enumerate(pair.reference.unbind(dim)) if one and torch.equal(sides[0], each)]
    inner = law_of(ParameterPair(name="", port=sides[0], reference=sides[1], others=()))
    if twins:
        inner = Law(id="weight.permuted", words=f"has what belongs at {twins[0]}")
    axis = {1: "entries", 2: _axis(dim, 2)}.get(pair.port.ndim, f"dimension {dim}, at")
    return Law(id=inner.id, words=f"differs in {axis} {_some(numbers)} only: there it {inner.words}")


def _not_finite(pair: ParameterPair) -> Law | None:
    count = int((~pair.port.isfinite() & pair.reference.isfinite()).sum())
    return Law(id="weight.values", words=f"has {count} numbers that are not finite") if count else None


LAWS: tuple[Callable[[ParameterPair], Law | None], ...] = (
    _not_finite,
    _constant,
    _another,
    _transposed,
    partial(_part, most=0.5),
    _permuted,
    _scaled,
    _rounded,
    _function,
    partial(_part, most=MOST),
)
IDS = frozenset({"weight.values", "precision.weight"})
