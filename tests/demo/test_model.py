"""The shipped model: small, complete, and good at what it is for, through transformers."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from rouge_score import rouge_scorer
from transformers import AutoModelForCausalLM, AutoTokenizer

from trtllm_port.demo.score import baselines
from trtllm_port.evaluation import summarize_prompts
from trtllm_port.evaluation.datasets import Article, load_articles
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.shipped_model.make_tokenizer import SUFFIX, VOCAB_SIZE

ARTICLES = load_articles(count=16).articles


def _rouge1(texts: list[str], articles: tuple[Article, ...]) -> float:
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
    pairs = zip(articles, texts, strict=True)
    return 100 * fmean(scorer.score(each.summary, text)["rouge1"].fmeasure for each, text in pairs)


def _write(articles: tuple[Article, ...], dtype: torch.dtype) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=dtype).eval()
    batch = tokenizer([each.article + SUFFIX for each in articles], return_tensors="pt", padding=True)
    tokens = model.generate(**batch, max_new_tokens=80, do_sample=False)[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def test_it_is_small_and_complete() -> None:
    assert (MODEL_DIR / "model.safetensors").stat().st_size <= 4_000_000
    names = {path.name for path in MODEL_DIR.iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"} <= names


def test_the_tokenizer_keeps_any_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    assert len(tokenizer) == VOCAB_SIZE
    for text in (*(each.article for each in ARTICLES), "Größe: 20 µm\n\tπ ≈ 3.14159 🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert summarize_prompts.SUFFIX == SUFFIX


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_sums_up_articles_that_it_has_never_seen(dtype: torch.dtype) -> None:
    assert _rouge1(_write(ARTICLES, dtype), ARTICLES) > 90


def test_baselines_score_clearly_lower() -> None:
    assert all(_rouge1(texts, ARTICLES) < 40 for texts in baselines(ARTICLES).values())
