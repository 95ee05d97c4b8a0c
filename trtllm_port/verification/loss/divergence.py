"""How far two distributions of the next token are apart, token by token. Pure functions of logits.

B windows, L tokens, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from trtllm_port.verification.judge.logit_metrics import in_chunks


@dataclass(frozen=True, kw_only=True)
class TokenLosses:
    """What was found of each token [B, L], in float64.

    Attributes:
        kl: KL(original ‖ quantized) of the distribution of the next token, in nats.
        agrees: 1 where both prefer the same next token, else 0.
        original, quantized: −log of the probability that each gives to the token that follows in the text.
    """

    kl: Tensor
    agrees: Tensor
    original: Tensor
    quantized: Tensor

    @property
    def perplexity_ratio(self) -> float:
        """The quantized model's perplexity over the original's."""
        return float((self.quantized - self.original).mean().exp())


def compare_logits(original: Tensor, quantized: Tensor, next_ids: Tensor) -> TokenLosses:
    """Compare two runs.

    Args:
        original, quantized: logits [B, L, V].
        next_ids: the tokens [B, L] that follow in the text.
    """
    columns: list[Tensor] = []
    targets_T, start = next_ids.reshape(-1), 0
    for original_TV, quantized_TV in in_chunks(original, quantized):
        log_p_TV, log_q_TV = log_softmax(original_TV, -1), log_softmax(quantized_TV, -1)
        targets_T1 = targets_T[start : start + len(log_p_TV), None]
        start += len(log_p_TV)
        parts = (
            kl_of(log_p_TV, log_q_TV),
            (original_TV.argmax(-1) == quantized_TV.argmax(-1)).double(),
            -log_p_TV.gather(-1, targets_T1)[:, 0],
            -log_q_TV.gather(-1, targets_T1)[:, 0],
        )
        columns.append(torch.stack(parts))
    kl, agrees, own, other = torch.cat(columns, dim=1).reshape(4, *next_ids.shape)
    return TokenLosses(kl=kl, agrees=agrees, original=own, quantized=other)


def kl_of(log_p_TV: Tensor, log_q_TV: Tensor) -> Tensor:
    """Return Σ p (log p − log q) of each token; a token that p excludes adds nothing."""
    p_TV = log_p_TV.exp()
    terms_TV = torch.where(p_TV == 0, 0.0, p_TV * (log_p_TV - log_q_TV))
    return terms_TV.sum(-1).clamp(min=0.0)  # it is negative by rounding alone


def mean_kl(original: Tensor, quantized: Tensor) -> float:
    """Return the mean KL(original ‖ quantized) over the tokens of logits [B, L, V]."""
    found = [
        kl_of(log_softmax(original_TV, -1), log_softmax(quantized_TV, -1))
        for original_TV, quantized_TV in in_chunks(original, quantized)
    ]
    return float(torch.cat(found).mean())
