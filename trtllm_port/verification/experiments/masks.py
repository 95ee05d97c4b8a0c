"""Hypotheses about the attention mask. L tokens, S slots"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trtllm_port.verification.experiments.experiment import Experiment
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors

CLEAR = 50.0  # a token whose error exceeds the noise this many times is wrong


def _masks(e: Experiment) -> Iterator[tuple[str, Tensor]]:
    for name, value in e.kwargs.items():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == value.shape[-2]:
            yield name, value


def _with_mask(e: Experiment, name: str, mask: Tensor, allowed_LS: Tensor) -> Tensor:
    other = allowed_LS.expand(mask.shape)
    if mask.dtype != torch.bool:
        other = torch.zeros_like(mask).masked_fill(~other, _lowest(mask))
    return e.run(kwargs={**e.kwargs, name: other})


def _allowed(length: int, window: int | None = None) -> Tensor:
    distance_LS = torch.arange(length)[:, None] - torch.arange(length)
    seen = distance_LS >= 0
    return seen if window is None else seen & (distance_LS < window)


def windows(e: Experiment) -> Iterator[Variant]:
    """Another window, or none."""
    sizes = {getattr(e.config, "sliding_window", None), getattr(e.module, "sliding_window", None)}
    known = {size for size in sizes if isinstance(size, int)}
    candidates = {size + step for size in known for step in (-1, 0, 1)} | set(_first_wrong(e))
    for name, mask in _masks(e):
        yield _masked(e, name, mask, "without a window", _allowed(mask.shape[-1]))
        for size in sorted(candidates):
            if 0 < size < mask.shape[-1]:
                yield _masked(e, name, mask, f"with a window of {size} tokens", _allowed(mask.shape[-1], size))


def _masked(e: Experiment, name: str, mask: Tensor, detail: str, allowed_LS: Tensor) -> Variant:
    return Variant(detail=detail, compute=lambda: _with_mask(e, name, mask, allowed_LS))


def _first_wrong(e: Experiment) -> Iterator[int]:
    """Windows that the position of the first wrong token suggests."""
    if e.reference.shape != e.port.shape:
        return
    wrong_T = relative_error_per_token(token_errors(e.port, e.reference)) > CLEAR * e.noise
    if bool(wrong_T.any()):
        first = int(wrong_T.int().argmax())
        yield from (size for size in (first - 1, first, first + 1) if size > 1)


def _lowest(mask: Tensor) -> float:
    """What hides a score in a mask: the lowest number of its data type; float64 stands for float32, see `exact`."""
    return torch.finfo(torch.float32 if mask.dtype == torch.float64 else mask.dtype).min


def masks(e: Experiment) -> Iterator[Variant]:
    """A mask that sees the future, or less than the past; what it hides otherwise, as before a window, stays hidden."""
    for name, mask in _masks(e):
        allowed_LS = (mask if mask.dtype == torch.bool else mask > _lowest(mask) / 2)[0, 0]
        for detail, allowed in (
            ("with a mask that hides nothing", torch.ones_like(allowed_LS)),
            ("with the next token's mask: it is seen, too", _of_neighbour(allowed_LS, 1)),
            ("with the mask of the token before: a token does not see itself", _of_neighbour(allowed_LS, -1)),
            ("with the last token's mask for every token", allowed_LS[-1:].expand_as(allowed_LS)),
        ):
            yield _masked(e, name, mask, detail, allowed)


def _of_neighbour(allowed_LS: Tensor, step: int) -> Tensor:
    """The mask of each token's neighbour; at the end it goes on by the distance of tokens, where it depends on that."""
    length = len(allowed_LS)
    by_distance = torch.cat((allowed_LS[0, 1:].flip(0), allowed_LS[:, 0]))  # of the distances 1 - length to length - 1
    distance_LS = torch.arange(length)[:, None] - torch.arange(length) + length - 1
    if torch.equal(by_distance[distance_LS], allowed_LS):
        return by_distance[(distance_LS + step).clamp(0, 2 * length - 2)]
    return allowed_LS[(torch.arange(length) + step).clamp(0, length - 1)]


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(
        id="mask.window",
        cause="wrong attention window",
        elsewhere=(r"causal_mask\(.*window", r"causal_mask\(", r"mask"),
        variants=windows,
    ),
    Hypothesis(id="mask", cause="wrong attention mask", elsewhere=(r"causal_mask\(", r"mask"), variants=masks),
)
