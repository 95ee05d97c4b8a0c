"""Prompts that ask for a summary: an article, then " TL;DR:".

Whatever is too long is cut from the article, so that the request always stands at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtllm_port.errors import PortError
from trtllm_port.evaluation.prompts import Tokenizer

__all__ = ["SUFFIX", "summary_prompts"]

SUFFIX = " TL;DR:"


def summary_prompts(tokenizer: Tokenizer, articles: Sequence[str], max_input_len: int) -> list[list[int]]:
    """The tokens of one prompt per article, each of at most `max_input_len` tokens.

    Args:
        tokenizer: of the model.
        articles: the texts; " n't" in them becomes "n't", as in the legacy script.
        max_input_len: tokens of a prompt at most.

    Raises:
        PortError: not even the request fits.
    """
    if len(tokenizer.encode(SUFFIX)) >= max_input_len:
        raise PortError(
            f"prompts of {max_input_len} tokens leave no room for an article",
            hint="build with a larger `--max-seq-len` and `--max-input-len`, or ask for a shorter output",
        )
    return [_prompt(tokenizer, article.strip().replace(" n't", "n't"), max_input_len) for article in articles]


def _prompt(tokenizer: Tokenizer, article: str, limit: int) -> list[int]:
    """Cut tokens off the article until all fits: text cut in the middle of a word can take more tokens than before."""
    tokens = tokenizer.encode(article + SUFFIX)
    kept = tokenizer.encode(article) if len(tokens) > limit else []
    while len(tokens) > limit and kept:
        kept = kept[: len(kept) - (len(tokens) - limit)]
        tokens = tokenizer.encode(tokenizer.decode(kept).rstrip() + SUFFIX)
    return tokens
