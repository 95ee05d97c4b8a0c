"""Metrics and gates for logits. Pure functions; tokens are taken in chunks so that large vocabularies stay cheap.

T tokens (all leading dimensions), V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from trtllm_port.verification.judge.metrics import SCRATCH_BYTES, TapMetrics, metrics
from trtllm_port.verification.judge.thresholds import CONFIDENT_MARGIN, CONFIDENT_NOISE_MULTIPLE

BEST = 8  # logits of a token that compete for its choice
P99_SAMPLE = 1 << 22  # torch.quantile refuses more than 2^24 values


@dataclass(frozen=True, kw_only=True)
class LogitMetrics:
    """How far one run's logits are from the reference's.

    Attributes:
        tap: the metrics of any tensor.
        kl_max, kl_mean: KL(reference ‖ run) per token, in nats.
        kl_noise: what this run's error makes of the token that is closest to a tie, on average.
        top1: fraction of tokens with the same best token.
        nmse: squared error over squared reference.
        scale, offset: least squares fit run = scale · reference + offset.
    """

    tap: TapMetrics
    kl_max: float
    kl_mean: float
    kl_noise: float
    top1: float
    nmse: float
    scale: float
    offset: float


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Agreement on tokens where the reference's choice stands out of the noise.

    Attributes:
        margin: the distance between the best two logits that counts as confident.
        confident, misses: tokens above the margin, and those of them where the port chose another.
        first_miss: index of the first such token, or None.
    """

    margin: float
    confident: int
    misses: int
    first_miss: int | None


def logit_metrics(logits: Tensor, reference: Tensor) -> LogitMetrics:
    """Compare logits [..., V] with a reference of the same shape; everything in float64."""
    tap = metrics(logits, reference)
    kl: list[Tensor] = []
    same: list[Tensor] = []
    weighted: list[Tensor] = []  # squared errors of the probable logits
    spread: list[Tensor] = []  # 1 - Σ p²: 0 where one token has all probability, 0.5 at a tie of two
    sums = torch.zeros(4, dtype=torch.float64)  # of x, ref, ref², x·ref
    for x_TV, ref_TV in in_chunks(logits, reference):
        log_p, log_q = log_softmax(ref_TV, -1), log_softmax(x_TV, -1)
        p_TV = log_p.exp()
        kl.append((p_TV * (log_p - log_q)).sum(-1))
        weighted.append((p_TV * (x_TV - ref_TV).square()).sum(-1))
        spread.append(1.0 - p_TV.square().sum(-1))
        same.append(x_TV.argmax(-1) == ref_TV.argmax(-1))
        sums += torch.stack([x_TV.sum(), ref_TV.sum(), (ref_TV * ref_TV).sum(), (x_TV * ref_TV).sum()])
    kl_T = torch.cat(kl)
    scale, offset = _affine(sums, logits.numel())
    return LogitMetrics(
        tap=tap,
        kl_max=float(kl_T.max()),
        kl_mean=float(kl_T.mean()),
        kl_noise=0.5 * float(torch.cat(weighted).mean()) * float(torch.cat(spread).max()),
        top1=float(torch.cat(same).double().mean()),
        nmse=tap.rel_l2**2,
        scale=scale,
        offset=offset,
    )


def _affine(sums: Tensor, count: int) -> tuple[float, float]:
    x, ref, ref_squared, product = (sums / count).tolist()
    variance = ref_squared - ref * ref
    scale = (product - x * ref) / variance if variance > 0 else 1.0
    return scale, x - scale * ref


def confident_margin(yardstick: Tensor, reference: Tensor) -> float:
    """Return the margin between the best two logits above which precision cannot explain another choice.

    Three times the 99th percentile of the absolute difference between Hugging Face's two precisions, at least 0.001.
    Only each token's best logits are asked: they are the largest and so the most coarsely rounded.
    """
    vocabulary = reference.shape[-1]
    best = reference.reshape(-1, vocabulary).topk(min(BEST, vocabulary), dim=-1)
    rough = yardstick.reshape(-1, vocabulary).gather(-1, best.indices)
    error = (rough.to(torch.float64) - best.values.to(torch.float64)).abs().flatten()
    stride = -(-error.numel() // P99_SAMPLE)
    return max(CONFIDENT_MARGIN, CONFIDENT_NOISE_MULTIPLE * float(torch.quantile(error[::stride], 0.99)))


def agreement(logits: Tensor, reference: Tensor, margin: float) -> Confidence:
    """Count the tokens whose best reference logit leads by more than `margin`, and those where the port disagrees."""
    vocabulary = logits.shape[-1]
    best_two = reference.reshape(-1, vocabulary).topk(min(2, vocabulary), dim=-1)
    lead_T = best_two.values[:, 0] - best_two.values[:, -1]
    chosen_T = logits.reshape(-1, vocabulary).argmax(-1)
    confident_T = lead_T > margin
    missed_T = confident_T & (chosen_T != best_two.indices[:, 0])
    first = int(missed_T.nonzero()[0]) if bool(missed_T.any()) else None
    return Confidence(margin=margin, confident=int(confident_T.sum()), misses=int(missed_T.sum()), first_miss=first)


def in_chunks(logits: Tensor, reference: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Give two tensors of logits [..., V] as [T, V] in float64, a few tokens at a time."""
    vocabulary = logits.shape[-1]
    step = max(1, SCRATCH_BYTES // (8 * vocabulary))
    x_TV, ref_TV = logits.detach().reshape(-1, vocabulary), reference.detach().reshape(-1, vocabulary)
    for start in range(0, x_TV.shape[0], step):
        part = slice(start, start + step)
        yield x_TV[part].to("cpu", torch.float64), ref_TV[part].to("cpu", torch.float64)
