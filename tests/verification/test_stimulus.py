from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from trtllm_port.errors import ConfigError
from trtllm_port.verification.stimulus.passages import PASSAGE
from trtllm_port.verification.stimulus.stimulus import Stimulus, encode, enough_tokens, make_stimulus, random_ids


@pytest.fixture
def with_tokenizer(tmp_path: Path) -> Path:
    words = sorted({word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(PASSAGE)})
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i + 1 for i, w in enumerate(words)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return tmp_path


def made(directory: Path, **options: Any) -> Stimulus:
    return make_stimulus(directory, **{"tokens": 512, "longest": 2048, "vocab_size": 1000} | options)


def test_the_built_in_passage_fills_the_prompt(with_tokenizer: Path) -> None:
    stimulus = made(with_tokenizer)
    assert len(stimulus.ids) == 512
    assert stimulus.decode_steps == 64
    assert "built-in passage" in stimulus.source
    assert not stimulus.limits


def test_a_prompt_file_is_taken_as_it_is(with_tokenizer: Path) -> None:
    file = with_tokenizer / "prompt.txt"
    file.write_text("the sea the sea the machine")
    stimulus = made(with_tokenizer, prompt_file=file)
    assert len(stimulus.ids) == 6
    assert stimulus.ids[:2] == stimulus.ids[2:4]
    assert "512 tokens were asked for, the prompt has 6" in stimulus.limits


def test_random_ids_are_seeded(tmp_path: Path) -> None:
    assert made(tmp_path) == made(tmp_path)
    assert made(tmp_path).ids != made(tmp_path, seed=1).ids
    assert max(made(tmp_path, vocab_size=7).ids) == 6
    assert "no tokenizer" in made(tmp_path).source


def test_a_tokenizer_beyond_the_vocabulary_is_not_used(with_tokenizer: Path) -> None:
    stimulus = made(with_tokenizer, vocab_size=50)
    assert max(stimulus.ids) < 50
    assert "random" in stimulus.source


def test_rows_have_unequal_prefixes_and_equal_continuations(tmp_path: Path) -> None:
    stimulus = made(tmp_path)
    assert stimulus.row_prefill == (96, 61, 17, 1)
    assert {len(row) - n for row, n in zip(stimulus.rows, stimulus.row_prefill, strict=True)} == {stimulus.row_steps}
    assert len({row[:8] for row in stimulus.rows}) == len(stimulus.rows)


@pytest.mark.parametrize("tokens", [2, 3, 9, 20])
def test_short_prompts_have_what_fits(tmp_path: Path, tokens: int) -> None:
    stimulus = made(tmp_path, tokens=tokens)
    assert len(stimulus.ids) == tokens
    assert stimulus.decode_steps == tokens // 2
    assert all(len(row) <= tokens for row in stimulus.rows)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfa"])
def test_an_unusable_prompt_file_is_refused(with_tokenizer: Path, content: bytes | None) -> None:
    file = with_tokenizer / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"prompt\.txt"):
        made(with_tokenizer, prompt_file=file)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, 512),
        ({"sliding_window": 1024}, 1088),
        ({"sliding_window": 1024, "use_sliding_window": False}, 512),
        ({"sliding_window": 4096}, 512),
        ({"attention_chunk_size": 600}, 664),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 1000}}, 1064),
        ({"rope_parameters": {"full": {"rope_type": "llama3", "original_max_position_embeddings": 900}}}, 964),
    ],
)
def test_the_default_prompt_passes_windows_and_original_contexts(config: dict[str, Any], tokens: int) -> None:
    assert enough_tokens(config) == tokens


@pytest.mark.parametrize("padding", [0, 3, 4])
def test_random_ids_hold_no_padding(padding: int) -> None:
    ids = random_ids(200, 5, 0, padding)
    assert set(ids) == set(range(5)) - {padding}
    assert padding in random_ids(200, 5, 0, None)


class Counting:
    """A tokenizer that makes a token of each word, and counts the characters that it is given."""

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        self.characters += len(text)
        return {"input_ids": [hash(word) % 97 for word in text.split()]}


@pytest.mark.parametrize("word", ["a", "word", "a-word-of-many-characters-" * 40])
def test_no_more_of_a_long_text_is_tokenized_than_its_first_tokens_need(word: str) -> None:
    text = " ".join(f"{word}{number}" for number in range(20_000))
    tokenizer = Counting()
    assert encode(tokenizer, text, 64) == Counting()(text)["input_ids"][:64]
    needed = len(" ".join(text.split()[:96]))
    assert tokenizer.characters <= 8 * needed + 2000


def test_a_long_prompt_file_begins_with_the_tokens_that_all_of_it_begins_with(with_tokenizer: Path) -> None:
    file = with_tokenizer / "prompt.txt"
    file.write_text(PASSAGE * 40)
    short = with_tokenizer / "short.txt"
    short.write_text(PASSAGE)
    first, second = (made(with_tokenizer, prompt_file=each, tokens=100) for each in (file, short))
    assert first.ids == second.ids
