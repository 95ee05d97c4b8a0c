"""Prompts that ask for a summary keep the request, however long the article is."""

from __future__ import annotations

import pytest

from trtllm_port.errors import PortError
from trtllm_port.evaluation.prompts import Tokenizer, load_tokenizer
from trtllm_port.evaluation.summarize_prompts import summary_prompts
from trtllm_port.shipped_model import MODEL_DIR

ARTICLE = "The “café” was n't open, said Hulda Brenvik. " * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(MODEL_DIR)


def test_a_short_article_is_kept_whole(tokenizer: Tokenizer) -> None:
    (tokens,) = summary_prompts(tokenizer, ["  It was n't so. \n"], 100)
    assert tokenizer.decode(tokens) == "It wasn't so. TL;DR:"


@pytest.mark.parametrize("limit", [12, 50, 51, 52, 53, 200])
def test_a_long_article_is_cut_and_the_request_stays(tokenizer: Tokenizer, limit: int) -> None:
    (tokens,) = summary_prompts(tokenizer, [ARTICLE], limit)
    assert limit - 4 <= len(tokens) <= limit
    text = tokenizer.decode(tokens)
    assert text.endswith(" TL;DR:")
    assert text.startswith("The “")


def test_no_room_for_an_article_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(PortError, match="leave no room"):
        summary_prompts(tokenizer, [ARTICLE], 3)
