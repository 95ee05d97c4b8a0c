"""ROUGE of summaries, per sample, through `evaluate` and the metric module that lies beside this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.foundation.claims import scratch

__all__ = ["ROUGE_KINDS", "mean_rouge", "rouge_per_sample"]

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRIC = Path(__file__).with_name("rouge_metric.py")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def rouge_per_sample(predictions: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """ROUGE F-measures of every sample, in points (0 to 100).

    Args:
        predictions: texts that a model wrote.
        references: the texts they should be like, as many.

    Raises:
        EnvironmentLackError: the module cache of `evaluate` cannot be written.
    """
    import evaluate

    with scratch() as cache:
        try:
            metric = evaluate.load(str(METRIC), module_type="metric", cache_dir=str(cache), keep_in_memory=True)
        except PermissionError as error:
            raise EnvironmentLackError(
                f"`evaluate` cannot write its module cache: {error}",
                hint="set `HF_HOME` to a directory that can be written",
            ) from error
        scores = metric.compute(
            predictions=[_sentence_per_line(text) for text in predictions],
            references=[_sentence_per_line(text) for text in references],
        )
    return {kind: tuple(100.0 * score for score in scores[kind]) for kind in ROUGE_KINDS}


def mean_rouge(per_sample: dict[str, tuple[float, ...]]) -> dict[str, float]:
    """The mean over all samples, per kind of ROUGE."""
    return {kind: fmean(scores) for kind, scores in per_sample.items()}


def _sentence_per_line(text: str) -> str:
    return "\n".join(_SENTENCE_END.split(text.strip()))
