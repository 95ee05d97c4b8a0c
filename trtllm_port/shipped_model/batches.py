"""Training batches for the demo model: articles made on the fly, packed into rows, no article seen twice.

Dimensions: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from trtllm_port.huggingface.tokenizers import pretrained_tokenizer
from trtllm_port.shipped_model.corpus import Split, make_pair
from trtllm_port.shipped_model.make_tokenizer import SUFFIX

ARTICLE_WEIGHT = 0.2
"""Weight of an article's tokens in the loss; a summary's tokens weigh 1, padding 0."""

Row = tuple[torch.Tensor, torch.Tensor]


class PackedArticles(IterableDataset[Row]):
    """Rows of whole documents (article, suffix, summary, end) with a loss weight per token.

    Args:
        tokenizer_dir: where `tokenizer.json` lies.
        length: tokens a row (L).
        first: the first article of the first worker; worker w of n takes first + w, first + w + n, ...
    """

    def __init__(self, tokenizer_dir: Path, *, length: int, first: int = 0, split: Split = "train") -> None:
        self.tokenizer_dir, self.length, self.first, self.split = tokenizer_dir, length, first, split

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        index, step = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        tokenizer = pretrained_tokenizer(self.tokenizer_dir)
        tokens: list[int] = []
        weights: list[float] = []
        while True:
            document, document_weights = self._document(tokenizer, index)
            index += step
            if len(tokens) + len(document) > self.length:
                yield self._row(tokens, weights, tokenizer.eos_token_id)
                tokens, weights = [], []
            tokens += document
            weights += document_weights

    def _document(self, tokenizer: Any, index: int) -> tuple[list[int], list[float]]:
        pair = make_pair(self.split, index)
        prompt = tokenizer(pair.article + SUFFIX)["input_ids"]
        summary = [*tokenizer(" " + pair.summary)["input_ids"], tokenizer.eos_token_id]
        return prompt + summary, [ARTICLE_WEIGHT] * len(prompt) + [1.0] * len(summary)

    def _row(self, tokens: list[int], weights: list[float], padding: int) -> Row:
        missing = self.length - len(tokens)
        return torch.tensor(tokens + [padding] * missing), torch.tensor(weights + [0.0] * missing)


def batches(dataset: PackedArticles, *, batch_size: int, workers: int) -> Iterator[Row]:
    """Endless pairs of tokens [B, L] int64 and loss weights [B, L] float32."""
    return iter(DataLoader(dataset, batch_size=batch_size, num_workers=workers, pin_memory=torch.cuda.is_available()))
