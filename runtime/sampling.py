"""From logits to the next token: greedy, or drawn after temperature, top-k and top-p, in that order.

The filters mean what transformers' `TemperatureLogitsWarper`, `TopKLogitsWarper` and `TopPLogitsWarper` mean, and the
draw is one `torch.multinomial` over the whole batch, so a seed gives the tokens that `torch.manual_seed(seed)` followed
by `generate(do_sample=True)` gives for the same logits.

Shape suffixes: B batch, V vocabulary, K the kept candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trtllm_port.errors import PortError

__all__ = ["Sampler", "SamplingConfig"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen.

    Args:
        temperature: divides the logits; 0 means greedy, and then the rest is not used.
        top_k: keep the k most likely tokens (and those that tie with the last of them); 0 keeps all.
        top_p: keep the most likely tokens whose probabilities sum to at least this; 1 keeps all.
        seed: of the draw; equal seeds give equal tokens.

    Raises:
        PortError: a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise PortError(f"`temperature` is {self.temperature}, expected 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise PortError(f"`top_k` is {self.top_k}, expected 0 (keep all tokens) or a positive number")
        if not 0.0 < self.top_p <= 1.0:
            raise PortError(f"`top_p` is {self.top_p}, expected a number above 0 and at most 1 (keep all tokens)")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


class Sampler:
    """Chooses one token per row; holds the state of the draw.

    Args:
        config: the rule.
        device: where the logits live.
    """

    def __init__(self, config: SamplingConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._generator: torch.Generator | None = None
        if not config.greedy:
            self._generator = torch.Generator(device=device)
            self._generator.manual_seed(config.seed)

    def __call__(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """The next token of each row: logits [B, V] of any float type to int64 [B]."""
        if self._generator is None:
            return logits_BV.argmax(dim=-1)
        probabilities_BV = torch.softmax(filter_logits(logits_BV, self.config), dim=-1)
        return torch.multinomial(probabilities_BV, num_samples=1, generator=self._generator).squeeze(1)


def filter_logits(logits_BV: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """Scale by the temperature, then drop what top-k and top-p exclude (-inf): float32 [B, V]."""
    scores_BV = logits_BV.float() / config.temperature
    if config.top_k:
        kept_BK = torch.topk(scores_BV, min(config.top_k, scores_BV.shape[-1])).values
        scores_BV = scores_BV.masked_fill(scores_BV < kept_BK[:, -1:], -torch.inf)
    if config.top_p < 1.0:
        sorted_BV, order_BV = torch.sort(scores_BV, descending=False)
        dropped_BV = sorted_BV.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - config.top_p
        dropped_BV[:, -1] = False  # the most likely token always stays
        scores_BV = scores_BV.masked_fill(dropped_BV.scatter(1, order_BV, dropped_BV), -torch.inf)
    return scores_BV
