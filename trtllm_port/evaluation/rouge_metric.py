"""ROUGE as a metric module for `evaluate.load`: Google's `rouge-score`, from a local file, so that it works offline.

The module of the same kind on the hub splits sentences with nltk's downloaded data; this one takes sentences as lines.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
from rouge_score import rouge_scorer

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

_DESCRIPTION = "ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum: F-measures of word overlap, with Porter's stemmer."
_CITATION = "Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004); scorer: google-research/rouge."
_INPUTS = "predictions, references: texts; for ROUGE-Lsum with one sentence a line. Returns lists of shares of 1."


class Rouge(evaluate.Metric):  # type: ignore[misc]  # evaluate has no type information
    """One F-measure per kind and sample."""

    def _info(self) -> Any:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=True)
        scores = [scorer.score(reference, text) for text, reference in zip(predictions, references, strict=True)]
        return {kind: [score[kind].fmeasure for score in scores] for kind in KINDS}
