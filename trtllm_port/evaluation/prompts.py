"""Prompts: read from a file, turned into tokens by a model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, PortError
from trtllm_port.layers.foreign import read_json, reading

__all__ = ["Tokenizer", "load_tokenizer", "read_prompts"]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: one a line of a text file, the `prompt` or `text` of each line of a JSON Lines file.

    Raises:
        PortError: the file is absent, empty, or not of that form.
    """
    if not path.is_file():
        raise PortError(f"`{path}` is not a file", hint="give a text file with one prompt a line, or a `.jsonl` file")
    with reading(path, PortError, hint="give a text file in UTF-8"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = (
        [_json_prompt(path, number, line) for number, line in enumerate(lines, 1)] if path.suffix == ".jsonl" else lines
    )
    if not prompts:
        raise PortError(f"`{path}` holds no prompts")
    return prompts


def _json_prompt(path: Path, number: int, line: str) -> str:
    with reading(path, PortError, failed=f"line {number} cannot be read"):
        value = json.loads(line)
    named = value if isinstance(value, dict) else {}
    text = value if isinstance(value, str) else next((named[k] for k in ("prompt", "text") if k in named), None)
    if not isinstance(text, str):
        raise PortError(f"`{path}`, line {number} has neither `prompt` nor `text`")
    return text


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer and the tokens that end its texts.

    Args:
        tokenizer: of transformers.
        eos_token_ids: from `generation_config.json`, else the tokenizer's own.
    """

    tokenizer: Any
    eos_token_ids: tuple[int, ...] = field(default=())

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """The tokens of a prompt.

        Args:
            text: the prompt.
            chat: as one turn of the user in the model's own chat template.

        Raises:
            ConfigError: there is no chat template.
        """
        if chat and not self.tokenizer.chat_template:
            raise ConfigError("the tokenizer has no chat template", hint="leave `--chat` out")
        with self._reading("makes no token ids of a text"):
            if not chat:
                return list(self.tokenizer(text)["input_ids"])
            turns = [{"role": "user", "content": text}]
            templated = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
            return list(templated["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of new tokens, without special ones."""
        with self._reading("makes no text of token ids"):
            return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _reading(self, failed: str) -> AbstractContextManager[None]:
        where = getattr(self.tokenizer, "name_or_path", "the tokenizer")
        hint = "check the model's tokenizer files"
        return reading(where, ConfigError, hint=hint, failed=f"has a tokenizer that {failed}")


def load_tokenizer(tokenizer_dir: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """Load a tokenizer from local files.

    Args:
        tokenizer_dir: a Hugging Face model directory.
        trust_remote_code: whether its own Python code may run.

    Raises:
        ConfigError: there is no tokenizer that transformers can load.
    """
    from transformers import AutoTokenizer

    if not tokenizer_dir.is_dir():
        raise ConfigError(f"`{tokenizer_dir}` is not a directory", hint="give the Hugging Face model's directory")
    hint = "give the directory of the Hugging Face model, with its `tokenizer.json`"
    with reading(tokenizer_dir, ConfigError, hint=hint, failed="has no tokenizer that transformers can load"):
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_dir, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return Tokenizer(tokenizer, _eos_token_ids(tokenizer_dir, tokenizer))


def _eos_token_ids(directory: Path, tokenizer: Any) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        if declared := declared_tokens(directory / name, "eos_token_id"):
            return declared
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)


def declared_tokens(path: Path, name: str) -> tuple[int, ...]:
    """The token ids that a model's file gives to a name, as `eos_token_id`; none where there is no such file or key.

    Raises:
        ConfigError: the file is no JSON object, or the value is no token id and no list of them.
    """
    if not path.exists():
        return ()
    value = read_json(path, ConfigError, hint="fetch it again").get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(each) is int for each in ids):
        raise ConfigError(f"`{path}`: `{name}` is {value!r}, expected a token id or a list of them")
    return tuple(ids)
