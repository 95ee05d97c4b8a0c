"""Prompts from files, and tokenizers from model directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtllm_port.errors import ConfigError, PortError
from trtllm_port.evaluation.prompts import load_tokenizer, read_prompts


def test_a_text_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Once upon a time\n\nTom and\n")
    assert read_prompts(tmp_path / "prompts.txt") == ["Once upon a time", "Tom and"]


def test_json_lines_keep_line_breaks(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "a\nb"}), json.dumps({"text": "c"}), json.dumps("d")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    assert read_prompts(tmp_path / "prompts.jsonl") == ["a\nb", "c", "d"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("prompts.txt", "\n \n", "holds no prompts"),
        ("prompts.jsonl", '{"prompt": "a"}\n{', "line 2 cannot be read: it is not JSON"),
        ("prompts.jsonl", '{"question": "a"}', "line 1 has neither"),
        ("absent.txt", None, "is not a file"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(PortError, match=words):
        read_prompts(tmp_path / name)


def test_a_trained_models_tokenizer(stories: Path) -> None:
    tokenizer = load_tokenizer(stories)
    assert tokenizer.eos_token_ids == (2,)
    tokens = tokenizer.encode("Once upon a time")
    assert tokenizer.decode(tokens).strip() == "Once upon a time"
    with pytest.raises(ConfigError, match="chat template"):
        tokenizer.encode("Hello", chat=True)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no tokenizer that transformers can load"):
        load_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="not a directory"):
        load_tokenizer(tmp_path / "absent")
