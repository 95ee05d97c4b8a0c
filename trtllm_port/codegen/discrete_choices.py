"""Modules that choose: routers, which number a token's experts, and indexers, which number the slots it attends to.

Near a tie rounding decides, and everything after another choice differs though nothing is wrong. So choices are
compared as sets, a few tokens may choose otherwise, and a port goes on with Hugging Face's choice.

B batch, L tokens of one row, T tokens of all rows, A chosen numbers of one token
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FLIPS = 0.02  # of the tokens may choose otherwise


def integer(tensor: Tensor) -> bool:
    """Whether a module gives numbers of something."""
    return tensor.dtype in (torch.int32, torch.int64)


def choices(taps: Mapping[str, Tensor]) -> dict[str, str]:
    """Find what is chosen, and what belongs to it.

    Args:
        taps: outputs by module; a module's further outputs are called `module:1` and so on.

    Returns:
        The tap of a choice to itself, and taps of the same module and shape, such as weights of experts, to the choice.
        Numbers of slots [B, L, A] stand alone, those of experts [T, A] or [B, L, A] have weights.
    """
    found: dict[str, str] = {}
    for name, tensor in taps.items():
        if not integer(tensor) or tensor.ndim < 2:
            continue
        module = name.partition(":")[0]
        beside = (
            other
            for other, value in taps.items()
            if other.partition(":")[0] == module and value.is_floating_point() and value.shape == tensor.shape
        )
        weights = dict.fromkeys(beside, name)
        if weights or tensor.ndim == 3:
            found |= {name: name, **weights}
    return found


def other_choices(found: Tensor, expected: Tensor, start: int | None) -> float:
    """Which part of the tokens chose otherwise.

    Args:
        found, expected: [B, L, A] or [T, A].
        start: of slots, the position of the first token: those behind a token are hidden from it.
    """
    if found.shape != expected.shape:
        return float("inf")
    ours, theirs = (_sorted(numbers, start) for numbers in (found, expected))
    return float((ours != theirs).any(-1).float().mean())


def most_others(expected: Tensor) -> float:
    """Which part of the tokens may choose otherwise: one, where there are few."""
    return max(FLIPS, 1 / expected.shape[:-1].numel())


def forced(chosen: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor | None:
    """Return Hugging Face's choice in place of the port's `tensor`, None where there is none of that shape."""
    expected = chosen.get(name)
    return expected.to(tensor.dtype) if expected is not None and expected.shape == tensor.shape else None


def where_chosen_alike(
    found: Tensor, expected: Tensor, found_choice: Tensor, expected_choice: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what belongs to a choice, in the order of the numbers, of the tokens that chose alike."""
    if len({tensor.shape for tensor in (found, expected, found_choice, expected_choice)}) > 1:
        return found, expected
    orders = [choice.long().argsort(-1) for choice in (found_choice, expected_choice)]
    alike = (found_choice.long().gather(-1, orders[0]) == expected_choice.long().gather(-1, orders[1])).all(-1)
    return found.gather(-1, orders[0])[alike], expected.gather(-1, orders[1])[alike]


def _sorted(numbers: Tensor, start: int | None) -> Tensor:
    if start is not None:
        positions = torch.arange(start, start + numbers.shape[1])[:, None]
        numbers = torch.where(numbers > positions, -1, numbers)
    return numbers.long().sort(-1).values
