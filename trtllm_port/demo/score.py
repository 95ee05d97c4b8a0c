"""ROUGE of the demo model on the shipped articles, beside baselines that need no model.

    python -m trtllm_port.demo.score [--dtype float32]

The baselines are the article's first sentence, its first three sentences, and the summary of another article.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from trtllm_port.evaluation.datasets import Article, load_articles
from trtllm_port.evaluation.prompts import load_tokenizer
from trtllm_port.evaluation.rouge import mean_rouge, rouge_per_sample
from trtllm_port.evaluation.summarize_prompts import summary_prompts
from trtllm_port.evaluation.summarize_sides import hugging_face_writes, load_hugging_face
from trtllm_port.shipped_model import MODEL_DIR

log = logging.getLogger("trtllm_port.demo.score")

OUTPUT_LEN = 100


def model_summaries(articles: Sequence[Article], model_dir: Path, dtype: str) -> list[str]:
    """What the model writes, greedily, through transformers."""
    tokenizer = load_tokenizer(model_dir)
    written = hugging_face_writes(
        load_hugging_face(model_dir, dtype=dtype, device="cpu"),
        summary_prompts(tokenizer, [each.article for each in articles], 1024 - OUTPUT_LEN),
        batch_size=8,
        max_new_tokens=OUTPUT_LEN,
        eos_token_ids=tokenizer.eos_token_ids,
    )
    return [tokenizer.decode(tokens).strip() for tokens in written.tokens]


def baselines(articles: Sequence[Article]) -> dict[str, list[str]]:
    """Summaries by name of the rule that makes them."""
    sentences = [each.article.split(". ") for each in articles]
    return {
        "first sentence": [each[0] for each in sentences],
        "first three sentences": [". ".join(each[:3]) for each in sentences],
        "another article's summary": [articles[number - 1].summary for number in range(len(articles))],
    }


def main() -> None:
    """Log a line per rule and one for the model."""
    parser = argparse.ArgumentParser(description="score the demo model beside baselines")
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    articles = load_articles(count=64).articles
    summaries = baselines(articles)
    summaries[f"the model in {arguments.dtype}"] = model_summaries(articles, arguments.model_dir, arguments.dtype)
    references = [each.summary for each in articles]
    for name, texts in summaries.items():
        scores = mean_rouge(rouge_per_sample(texts, references))
        equal = sum(text == reference for text, reference in zip(texts, references, strict=True))
        shown = ", ".join(f"{kind} {score:.1f}" for kind, score in scores.items())
        log.info("%-26s %s, %d of %d equal", name, shown, equal, len(articles))


if __name__ == "__main__":
    main()
