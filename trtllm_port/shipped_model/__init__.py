"""A small trained Llama with held-out articles, shipped so that the whole way can be tried offline.

`model/` is a Hugging Face model directory, `data/articles.jsonl` holds article and summary pairs that the model has
never seen. Both are made here: `python -m trtllm_port.shipped_model.make_tokenizer`, then `train` and `make_dataset`.
A newcomer who wants another model changes `train.py`, and what the articles tell of in `corpus/`.
"""

from __future__ import annotations

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""The Hugging Face directory of the demo model."""

ARTICLES = Path(__file__).parent / "data" / "articles.jsonl"
"""Held-out article and summary pairs as JSON Lines, keys `article` and `summary`."""
