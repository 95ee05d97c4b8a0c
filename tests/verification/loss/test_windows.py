"""The text: every token is predicted once, windows begin as a text of the model's does, and nothing is repeated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trtllm_port.errors import ConfigError
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.verification.loss.windows import TOKENS, WINDOW, make_windows
from trtllm_port.verification.stimulus.stimulus import load_tokenizer

SIZES = {"vocab_size": 1024, "longest": 1024}


def test_the_text_that_ships_is_enough() -> None:
    windows = make_windows(MODEL_DIR, **SIZES)
    assert (windows.length, windows.tokens) == (WINDOW, TOKENS)
    assert windows.source.startswith("a passage and made-up news articles")
    pairs = list(zip(windows.ids, windows.ids[1:], strict=False))
    assert all(left[-1] == right[0] for left, right in pairs)
    assert len(set(windows.ids)) == len(windows.ids)


def test_windows_begin_as_the_tokenizer_begins(tmp_path: Path) -> None:
    shutil.copytree(MODEL_DIR, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    content = json.loads(path.read_text())
    token = content["added_tokens"][0]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            token["content"]: {"id": token["content"], "ids": [token["id"]], "tokens": [token["content"]]}
        },
    }
    path.write_text(json.dumps(content))
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bos_token": token["content"]}))
    windows = make_windows(tmp_path / "model", **SIZES)
    assert windows.tokens == TOKENS
    assert {window[0] for window in windows.ids} == {token["id"]}
    plain = load_tokenizer(MODEL_DIR)[0]
    text = plain.decode([each for window in windows.ids for each in window[1:]])
    assert text.startswith("Once upon a time a lighthouse keeper")


def test_a_model_of_few_positions_gets_shorter_windows() -> None:
    windows = make_windows(MODEL_DIR, vocab_size=1024, longest=100)
    assert (windows.length, windows.tokens) == (100, 4100)


def test_without_a_tokenizer_the_tokens_are_random_and_that_is_said(tmp_path: Path) -> None:
    windows = make_windows(tmp_path, vocab_size=61, longest=128, padding=3, seed=7)
    assert windows.source == "seeded random token ids (seed 7), which are no text: the model directory has no tokenizer"
    assert windows.tokens == TOKENS
    assert {each for window in windows.ids for each in window} == set(range(61)) - {3}
    small = make_windows(MODEL_DIR, vocab_size=100, longest=128)
    assert "the tokenizer has ids beyond the vocabulary of 100" in small.source


def test_a_text_of_ones_own(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The harbour was quiet when the first boat came back. " * 60)
    windows = make_windows(MODEL_DIR, **SIZES, prompt_file=text)
    assert windows.source == f"`{text}`, by the model's tokenizer"
    assert WINDOW <= windows.tokens < TOKENS
    text.write_text("One day")
    short = make_windows(MODEL_DIR, **SIZES, prompt_file=text)
    assert len(short.ids) == 1
    assert 0 < short.length < 7
    text.write_text("a")
    with pytest.raises(ConfigError, match="the text has 1 tokens, at least 2 are needed"):
        make_windows(MODEL_DIR, **SIZES, prompt_file=text)
    with pytest.raises(ConfigError, match="the model directory has no tokenizer"):
        make_windows(tmp_path, **SIZES, prompt_file=text)
