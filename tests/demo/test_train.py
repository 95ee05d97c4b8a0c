"""Training: a few steps lower the loss, and what is written loads again."""

from __future__ import annotations

import itertools

import pytest
import torch

from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.shipped_model.batches import ARTICLE_WEIGHT, PackedArticles, batches
from trtllm_port.shipped_model.make_tokenizer import END
from trtllm_port.shipped_model.train import make_optimizer, new_model, train, warmup_and_cosine, weighted_loss


def test_rows_hold_whole_documents_with_weights() -> None:
    from transformers import AutoTokenizer

    tokens_L, weights_L = next(iter(PackedArticles(MODEL_DIR, length=600)))
    text = AutoTokenizer.from_pretrained(MODEL_DIR).decode(tokens_L[weights_L > 0])
    assert tokens_L.shape == weights_L.shape == (600,)
    assert text.count(" TL;DR: ") == text.count(END) >= 2
    assert {round(weight, 6) for weight in weights_L.unique().tolist()} <= {0.0, ARTICLE_WEIGHT, 1.0}


def test_workers_do_not_repeat_articles() -> None:
    rows = PackedArticles(MODEL_DIR, length=300)
    first, second = itertools.islice(batches(rows, batch_size=2, workers=0), 2)
    assert not torch.equal(first[0], second[0])


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = new_model(0)
    data = batches(PackedArticles(MODEL_DIR, length=256), batch_size=2, workers=0)
    batch = next(data)
    before, _ = weighted_loss(model, batch, "cpu")
    train(model, make_optimizer(model, 3e-3), itertools.repeat(batch), batch, steps=4)
    after, _ = weighted_loss(model, batch, "cpu")
    assert float(after.detach()) < float(before.detach()) - 0.5


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [warmup_and_cosine(step, 1000) for step in range(1000)]
    assert shares[0] == pytest.approx(0.02)
    assert shares[50] == pytest.approx(1.0)
    assert shares[999] == pytest.approx(0.01, abs=1e-4)
