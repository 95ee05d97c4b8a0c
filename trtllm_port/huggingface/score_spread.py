"""Random weights whose attention neither saturates nor is uniform, whatever constant factors a model applies.

With weights that keep activations at unit size, scores (what goes into a softmax over keys) spread by about one. A
model may multiply queries or keys by factors that trained weights make up for: its scores spread by five, say, and
a softmax that picks one key turns rounding into errors as large as its output. Or by a tenth, and no mistake in
attention shows. So `spread_scores` measures the spread in every module that attends, from the first layer to the last
(as LSUV does, Mishkin & Matas 2015), and scales a weight by a power of two where it is far from usual.

B batch, H heads, L tokens, K size of a head
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trtllm_port.errors import ConfigError

TARGET = 1.5
USUAL = (0.3, 2.5)  # what spreads so much stays as it is
TOKENS = 23  # unlike the sizes of models, by which scores are known from other tensors
MOST = 1_000_000_000  # parameters of a model that is run for this
ELASTIC = 0.3  # how far a spread may be from following a weight exactly
MASKED = -1e3


def spread_scores(model: nn.Module, seed: int = 0) -> None:
    """Scale weights, in place, so that attention scores spread by about `TARGET` where that is not `USUAL`.

    A weight is scaled if the spread follows it alone: one that queries or keys come out of. Where there is none, or in
    models of more than `MOST` parameters, everything stays as it is.

    Args:
        model: a Hugging Face causal language model.
        seed: of the prompt.

    Raises:
        ConfigError: the model does not run with its config.
    """
    if sum(parameter.numel() for parameter in model.parameters()) > MOST:
        return
    generator = torch.Generator().manual_seed(seed)
    config: Any = model.config
    ids = torch.randint(config.get_text_config().vocab_size, (1, TOKENS), generator=generator)
    was_training = model.training
    try:
        with torch.no_grad(), _Spreads() as spreads, _scaling(model.eval(), spreads):
            model(input_ids=ids, use_cache=False)
    except Exception as error:  # any: it is Hugging Face's code that runs here
        raise ConfigError(
            f"Hugging Face's own `{config.model_type}` does not run with this config: {type(error).__name__}: {error}",
            hint="no port can be compared with it: correct what the message names",
        ) from error
    model.train(was_training)


@contextmanager
def _scaling(model: nn.Module, spreads: _Spreads) -> Iterator[None]:
    """While it lasts, a module that attends gets its weights scaled behind its call, which is then made again."""

    def before(*_: Any) -> None:
        spreads.open()

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        spread = spreads.close()
        if spread is None or USUAL[0] <= spread <= USUAL[1]:
            return output

        def again() -> tuple[Any, float]:
            spreads.open()
            return module.forward(*args, **kwargs), spreads.close() or 0.0

        _scale(module, spread, lambda: again()[1])
        return again()[0]

    handles = []
    for module in model.modules():
        handles += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after, with_kwargs=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale(module: nn.Module, spread: float, measured: Callable[[], float]) -> None:
    """Scale the weight of a module that its scores follow best."""
    found: list[tuple[float, float, nn.Parameter]] = []
    for parameter in (one for one in module.parameters() if one.ndim > 1):
        parameter.mul_(0.5)
        halved = measured()
        parameter.mul_(2.0)
        follows = math.log2(spread / halved) if halved > 0 else 0.0
        found.append((abs(follows - 1), follows, parameter))
    distance, follows, best = min(found, key=lambda one: one[0], default=(math.inf, 0.0, nn.Parameter()))
    if distance <= ELASTIC:
        best.mul_(2.0 ** round(math.log2(TARGET / spread) / follows))


@dataclass(eq=False)
class _Spreads(TorchFunctionMode):
    """Measures what goes into each softmax over keys, for the innermost module that is open."""

    open_modules: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def open(self) -> None:
        self.open_modules.append([])

    def close(self) -> float | None:
        """The largest spread of the module that was opened last; None if it did not attend."""
        return max(self.open_modules.pop(), default=None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        scores = None
        if name == "softmax":
            scores = args[0] if args else given["input"]
        elif name == "scaled_dot_product_attention":
            scores = _scores(args[0], args[1], given.get("scale")) if len(args) > 1 else None
        if scores is not None and self.open_modules and _over_keys(scores):
            self.open_modules[-1].append(_spread(scores))
        return func(*args, **given)


def _scores(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """[B, H, L, L] of what `scaled_dot_product_attention` gets, unmasked."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    return query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)


def _over_keys(scores: Tensor) -> bool:
    """Whether these are scores [B, H, L, L], perhaps with one more for a sink."""
    return scores.ndim == 4 and scores.shape[-2] == TOKENS and scores.shape[-1] in (TOKENS, TOKENS + 1)


def _spread(scores: Tensor) -> float:
    """The standard deviation over the keys that a token may see."""
    scores = scores[..., :TOKENS].float()
    seen = (scores > MASKED) & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    count = seen.sum(-1, keepdim=True).clamp(min=1)
    mean = scores.where(seen, 0.0).sum(-1, keepdim=True) / count
    squares = (scores - mean).square().where(seen, 0.0)
    return math.sqrt(float(squares.sum() / seen.sum().clamp(min=1)))
