"""The measurement: both models over the same text, window by window; then each part of the model alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trtllm_port.errors import CheckpointError, ConfigError
from trtllm_port.foundation.intervals import bootstrap_interval
from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.weights import HuggingFaceWeights
from trtllm_port.verification.loss.divergence import TokenLosses, compare_logits
from trtllm_port.verification.loss.parts import parts_of
from trtllm_port.verification.loss.result import Divergence, Estimate, Loss, Perplexity, Shares, word_of
from trtllm_port.verification.loss.shares import PREDICTIONS, measure_shares
from trtllm_port.verification.loss.weight_errors import WeightErrors, weight_errors
from trtllm_port.verification.loss.windows import Windows
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.taps.layer_groups import name_a_few

LOGITS_BYTES = 128 << 20  # of one side at once; a single window may have more
FEWEST_WINDOWS = 4  # that shares are measured on, where the text has as many
STREAMED = (
    "memory does not hold the model twice in float32, so its weights are read layer by layer, and what each module "
    "costs was not measured"
)


class Runs(Protocol):
    """A model's logits [B, L, V] of token ids [B, L]."""

    def run(self, ids_BL: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model with two sets of weights.

    Attributes:
        original, quantized: directories; the second one's weights are dequantized, its class is the same.
        names: the weights that are quantized.
        load: gives Hugging Face's model of a directory, in float32.
    """

    original: Path
    quantized: Path
    names: Collection[str]
    load: Callable[[Path], HuggingFaceRunner]


def measure(pair: Pair, windows: Windows, progress: Progress | None = None) -> Loss:
    """Measure what quantization cost.

    Args:
        pair: the model with either weights.
        windows: the text.
        progress: called with (phase, done, total).

    Raises:
        ConfigError: the original's weights are incomplete.
    """
    original, quantized = load_both(pair)
    tokens = run_both(original, quantized, windows, progress)
    sources = HuggingFaceWeights(pair.original), HuggingFaceWeights(pair.quantized)
    errors = weight_errors(*sources, pair.names, progress)
    shares = None
    if not original.streamed:
        parts = parts_of(original.model, quantized.model, pair.names, errors.others)
        batches = [ids_BL[:, :-1] for ids_BL in batches_of(spread_over(windows), windows.vocab_size)]
        shares = measure_shares(original, quantized, parts, errors.squares, batches, progress)
    for runner in (original, quantized):
        runner.forget_weights()
    return _loss(tokens, windows, errors, shares)


def load_both(pair: Pair) -> tuple[HuggingFaceRunner, HuggingFaceRunner]:
    """Load the original and the quantized model.

    Raises:
        ConfigError: the original's weights are incomplete.
    """
    try:
        original = pair.load(pair.original)
    except CheckpointError as error:  # of the original: a `CheckpointError` would be the port's
        raise ConfigError(f"the original cannot be used: {error.message}", hint="fetch its weights again") from error
    return original, pair.load(pair.quantized)


def run_both(
    original: Runs, quantized: Runs, windows: Windows, progress: Progress | None = None, phase: str = "loss"
) -> TokenLosses:
    """Both models over all windows; of the logits of a batch nothing is kept.

    Args:
        original, quantized: the models.
        windows: the text.
        progress: called with (phase, windows done, windows).
        phase: for `progress`.
    """
    found: list[TokenLosses] = []
    done = 0
    for ids_BL in batches_of(windows.ids, windows.vocab_size):
        if progress is not None:
            progress(phase, done, len(windows.ids))
        fed_BL, next_BL = ids_BL[:, :-1], ids_BL[:, 1:]
        found.append(compare_logits(original.run(fed_BL), quantized.run(fed_BL), next_BL))
        done += len(ids_BL)
    if progress is not None:
        progress(phase, done, done)
    columns = ([getattr(each, name) for each in found] for name in TokenLosses.__dataclass_fields__)
    return TokenLosses(**dict(zip(TokenLosses.__dataclass_fields__, map(torch.cat, columns), strict=True)))


def batches_of(ids: Sequence[Sequence[int]], vocab_size: int) -> Iterator[Tensor]:
    """Yield as many windows at once as their logits allow."""
    step = max(1, LOGITS_BYTES // (4 * len(ids[0]) * vocab_size))
    for start in range(0, len(ids), step):
        yield torch.tensor(ids[start : start + step])


def spread_over(windows: Windows) -> Sequence[Sequence[int]]:
    """Return the beginnings of a few windows, from all over the text."""
    length = min(windows.length, PREDICTIONS // FEWEST_WINDOWS)
    count = min(len(windows.ids), -(-PREDICTIONS // length))
    return [windows.ids[number * len(windows.ids) // count][: length + 1] for number in range(count)]


def _loss(tokens: TokenLosses, windows: Windows, errors: WeightErrors, shares: Shares | None) -> Loss:
    kl, flat = _estimate(tokens.kl), tokens.kl.flatten()
    change = _estimate(tokens.quantized - tokens.original)  # of −log p: its exponential is the ratio of perplexities
    return Loss(
        text=windows.source,
        windows=len(windows.ids),
        window=windows.length,
        word=word_of(kl.value),
        kl=Divergence(
            mean=kl.value,
            low=kl.low,
            high=kl.high,
            median=float(flat.quantile(0.5)),
            p99=float(flat.quantile(0.99)),
            max=float(flat.max()),
        ),
        top1=_estimate(tokens.agrees),
        perplexity=Perplexity(
            original=_exp(float(tokens.original.mean())),
            quantized=_exp(float(tokens.quantized.mean())),
            ratio=Estimate(value=_exp(change.value), low=_maybe_exp(change.low), high=_maybe_exp(change.high)),
        ),
        shares=shares,
        weights=dict(sorted(errors.relative.items(), key=lambda each: -each[1])),
        notes=tuple(_notes(errors, shares)),
    )


def _estimate(values_BL: Tensor) -> Estimate:
    """The mean over all tokens; windows, not tokens, are independent of each other."""
    means_B = values_BL.mean(-1)
    if len(means_B) < 2 or not bool(means_B.isfinite().all()):
        return Estimate(value=float(values_BL.mean()), low=None, high=None)
    low, high = bootstrap_interval(means_B.tolist())
    return Estimate(value=float(values_BL.mean()), low=low, high=high)


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())  # infinite, where Python's own raises


def _maybe_exp(value: float | None) -> float | None:
    return None if value is None else _exp(value)


def _notes(errors: WeightErrors, shares: Shares | None) -> Iterator[str]:
    if errors.others:
        named = name_a_few([f"`{name}`" for name in errors.others])
        by = "; so layers are compared as a whole" if shares is not None else ""
        yield (
            f"{len(errors.others)} tensors that are not quantized differ from the original's by more than rounding, as "
            f"after AWQ or SmoothQuant, or because the original is another model: {named}{by}"
        )
    if errors.absent:
        named = name_a_few([f"`{name}`" for name in errors.absent])
        yield f"{len(errors.absent)} quantized weights have other names or shapes in the original's files: {named}"
    if shares is None:
        yield STREAMED
