"""The synthetic corpus: the same every time, of the promised size, and split so that held-out names are new."""

from __future__ import annotations

import json
import re

from trtllm_port.shipped_model import ARTICLES
from trtllm_port.shipped_model.corpus import Pair, make_pair
from trtllm_port.shipped_model.corpus.names import CLASSES, is_reserved
from trtllm_port.shipped_model.make_dataset import held_out_lines

TRAIN = [make_pair("train", number) for number in range(400)]
HELD_OUT = [make_pair("held_out", number) for number in range(400)]
CLASS_WORDS = {word for words in CLASSES.values() for word in words}
COMMON = {word for pair in TRAIN for word in re.findall(r"[a-z]+", pair.article)}


def _names(pair: Pair) -> set[str]:
    """Capitalised words of a summary that are no common words and no months."""
    words = re.findall(r"[A-Z][a-z]{2,}", pair.summary)
    return {word for word in words if word not in CLASS_WORDS and word.lower() not in COMMON}


def test_a_pair_is_a_function_of_its_number() -> None:
    assert make_pair("train", 7) == make_pair("train", 7) != make_pair("train", 8)
    assert make_pair("held_out", 7) != make_pair("train", 7)


def test_articles_and_summaries_have_the_promised_size() -> None:
    for pair in TRAIN + HELD_OUT:
        assert 60 <= len(pair.article.split()) <= 150
        assert 1 <= len(re.findall(r"[a-z]\.(?: |$)", pair.summary)) <= 2
        assert "{" not in pair.article + pair.summary


def test_what_a_summary_says_stands_in_its_article() -> None:
    for pair in TRAIN + HELD_OUT:
        assert all(number in pair.article for number in re.findall(r"\d[\d,.]*\d|\d", pair.summary))
        assert all(name in pair.article for name in _names(pair))


def test_the_first_sentence_is_no_summary() -> None:
    for pair in TRAIN:
        first = pair.article.split(". ")[0]
        assert len(set(first.lower().split()) & set(pair.summary.lower().split())) < 8


def test_reserved_names_are_held_out() -> None:
    seen = {name for pair in TRAIN for name in _names(pair)}
    held_out = [name for pair in HELD_OUT for name in _names(pair)]
    assert not any(is_reserved(name) for name in seen)
    assert 0.3 < sum(map(is_reserved, held_out)) / len(held_out) < 0.7


def test_the_shipped_articles_are_the_first_held_out_ones() -> None:
    lines = ARTICLES.read_text(encoding="utf-8").splitlines()
    assert lines == held_out_lines(64)
    assert set(json.loads(lines[0])) == {"id", "article", "summary"}
