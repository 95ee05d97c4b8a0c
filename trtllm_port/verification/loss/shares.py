"""Which modules make the loss: each quantized alone, the others as they were.

The sum of the parts is not the whole, for errors add up or cancel; both are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.loss.divergence import mean_kl
from trtllm_port.verification.loss.parts import Parts
from trtllm_port.verification.loss.result import Part, Shares
from trtllm_port.verification.loss.weight_errors import relative
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

PREDICTIONS = 512  # for each part: a forward pass of all of them is what a part costs


def measure_shares(
    original: HuggingFaceRunner,
    quantized: HuggingFaceRunner,
    parts: Parts,
    squares: Mapping[str, tuple[float, float]],
    batches_BL: Sequence[Tensor],
    progress: Progress | None = None,
) -> Shares:
    """Run the original with one part at a time quantized.

    Args:
        original, quantized: the two models, both in memory; they are as they were afterwards.
        parts: what is replaced at a time.
        squares: see `WeightErrors`.
        batches_BL: token ids.
        progress: called with ("loss by module" or "loss by layer", done, total).
    """
    sums, together, windows = dict.fromkeys(parts.parameters, 0.0), 0.0, 0
    done, total = 0, len(batches_BL) * len(parts.parameters)
    for ids_BL in batches_BL:
        expected = original.run(ids_BL)
        windows += len(ids_BL)
        together += len(ids_BL) * mean_kl(expected, quantized.run(ids_BL))
        for part, parameters in parts.parameters.items():
            if progress is not None:
                progress(f"loss by {parts.by}", done, total)
            done += 1
            with replaced(original.model, quantized.model, parameters):
                sums[part] += len(ids_BL) * mean_kl(expected, original.run(ids_BL))
    if progress is not None:
        progress(f"loss by {parts.by}", total, total)
    whole = sum(sums.values())
    found = [
        Part(
            name=part,
            kl=kl / windows,
            share=kl / whole if whole else 0.0,
            error=_error([squares[name] for name in parts.weights[part] if name in squares]),
        )
        for part, kl in sums.items()
    ]
    return Shares(
        by=parts.by,
        tokens=sum(ids_BL.numel() for ids_BL in batches_BL),
        together=together / windows,
        sum=whole / windows,
        parts=tuple(sorted(found, key=lambda part: -part.kl)),
    )


@contextmanager
def replaced(model: nn.Module, other: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """While it lasts, a model's parameters are another one's; nothing is copied."""
    names = tuple(names)
    own, others = (dict(each.named_parameters(remove_duplicate=False)) for each in (model, other))
    kept: dict[str, torch.Tensor] = {name: own[name].data for name in names}
    try:
        for name in names:
            own[name].data = others[name].data
        yield
    finally:
        for name in names:
            own[name].data = kept[name]


def _error(squares: Sequence[tuple[float, float]]) -> float | None:
    if not squares:
        return None
    return relative(sum(error for error, _ in squares), sum(size for _, size in squares))
