"""Prompts from files, and tokenizers from model directories."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.errors import ConfigError, EnvironmentLackError, PortError
from trtllm_port.evaluation.prompts import Tokenizer, load_tokenizer, read_prompts
from trtllm_port.shipped_model import MODEL_DIR


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
        ("prompts.jsonl", '\n\n{"prompt": "a"}\n\n{', "line 5 cannot be read: it is not JSON"),
        ("prompts.jsonl", '{"question": "a"}', "line 1 has neither"),
        ("prompts.jsonl", "5", "line 1 has neither"),
        ("prompts.jsonl", "[" * 100_000, "line 1 cannot be read: it is nested too deeply"),
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


@pytest.mark.parametrize("number", [{"prompt": "a\u2028b\x0bc"}, "a\u2028b\x0bc"])
def test_lines_end_at_line_feeds_and_carriage_returns_only(tmp_path: Path, number: object) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(number, ensure_ascii=False) + "\r\n" + json.dumps("c"), encoding="utf-16")
    assert read_prompts(path) == ["a\u2028b\x0bc", "c"]


def test_half_a_surrogate_pair_is_no_text() -> None:
    tokenizer = load_tokenizer(MODEL_DIR)
    with pytest.raises(PortError, match="half a surrogate pair at character 2"):
        tokenizer.encode("a\u2028\udcff")


@pytest.fixture
def chatty(tmp_path: Path) -> Callable[[Any], Tokenizer]:
    """The demo model's tokenizer with a chat template."""

    def load(template: Any) -> Tokenizer:
        shutil.copytree(MODEL_DIR, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
        config = tmp_path / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
        return load_tokenizer(tmp_path)

    return load


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('Only with a system turn') }}", "one turn of the user: Only with a system turn"),
        ("{{ messages[1]['content'] }}", "one turn of the user"),
        ("{{ 1 / 0 }}", "one turn of the user: division by zero"),
        ("{% for %}", "one turn of the user"),
        ([{"name": "rag", "template": "X"}, {"name": "tool_use", "template": "Y"}], "'rag', 'tool_use', and none"),
    ],
)
def test_templates_that_do_not_render_a_turn_say_why(
    chatty: Callable[[Any], Tokenizer], template: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        chatty(template).encode("Hello", chat=True)
    assert "leave `--chat` out" in str(caught.value.hint)


def test_of_named_templates_the_default_is_taken(chatty: Callable[[Any], Tokenizer]) -> None:
    named = [{"name": "rag", "template": "X"}, {"name": "default", "template": "Say {{ messages[0]['content'] }}"}]
    tokenizer = chatty(named)
    assert tokenizer.encode("Hello", chat=True) == tokenizer.encode("Say Hello")


SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02"
"""The first bytes of a SentencePiece model: its first piece."""


@pytest.mark.parametrize(
    ("files", "package"),
    [
        ({"tokenizer.model": SENTENCEPIECE}, "sentencepiece"),
        ({"tokenizer.model": b"IQ== 0\nIg== 1\n"}, "tiktoken"),
        (
            {"spiece.model": SENTENCEPIECE, "tokenizer_config.json": b'{"tokenizer_class": "T5Tokenizer"}'},
            "sentencepiece",
        ),
        ({"vocab.txt": b"", "tokenizer_config.json": b'{"tokenizer_class": "GPTSw3Tokenizer"}'}, "sentencepiece"),
        ({"vocab.json": b"{}", "merges.txt": b"", "config.json": b'{"model_type": "biogpt"}'}, "sacremoses"),
    ],
)
def test_the_package_that_a_tokenizer_needs_is_named(tmp_path: Path, files: dict[str, bytes], package: str) -> None:
    for name in ("sentencepiece", "tiktoken", "sacremoses"):
        if importlib.util.find_spec(name):
            pytest.skip(f"{name} is installed")
    for name, content in ({"config.json": b'{"model_type": "llama"}'} | files).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EnvironmentLackError, match=f"needs `{package}`") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.hint == f"`pip install {package}`"
    assert caught.value.exit_code == 3


def test_what_a_tokenizers_own_code_imports_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    own = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "mine.py").write_text("import no_such_package\nclass Mine: pass\n")
    with pytest.raises(EnvironmentLackError, match="needs `no_such_package`"):
        load_tokenizer(tmp_path, trust_remote_code=True)
    with pytest.raises(ConfigError, match="custom code") as caught:
        load_tokenizer(tmp_path)
    assert "--trust-remote-code" in str(caught.value.hint)
