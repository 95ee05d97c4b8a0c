"""Prompts: read from a file, turned into tokens by a model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, PortError

__all__ = ["Tokenizer", "load_tokenizer", "read_prompts"]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: one a line of a text file, the `prompt` or `text` of each line of a JSON Lines file.

    Raises:
        PortError: the file is absent, empty, or not of that form.
    """
    if not path.is_file():
        raise PortError(f"`{path}` is not a file", hint="give a text file with one prompt a line, or a `.jsonl` file")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = (
        [_json_prompt(path, number, line) for number, line in enumerate(lines, 1)] if path.suffix == ".jsonl" else lines
    )
    if not prompts:
        raise PortError(f"`{path}` holds no prompts")
    return prompts


def _json_prompt(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise PortError(f"`{path}`, line {number} is not JSON: {error}") from error
    text = value if isinstance(value, str) else next((value[k] for k in ("prompt", "text") if k in value), None)
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
        if not chat:
            return list(self.tokenizer(text)["input_ids"])
        if not self.tokenizer.chat_template:
            raise ConfigError("the tokenizer has no chat template", hint="leave `--chat` out")
        turns = [{"role": "user", "content": text}]
        templated = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        return list(templated["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of new tokens, without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


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
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_dir, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"transformers cannot load a tokenizer from `{tokenizer_dir}`: {reason[0]}",
            hint="give the directory of the Hugging Face model, with its `tokenizer.json`",
        ) from error
    return Tokenizer(tokenizer, _eos_token_ids(tokenizer_dir, tokenizer))


def _eos_token_ids(directory: Path, tokenizer: Any) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        file = directory / name
        declared = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        if declared is not None:
            return tuple(declared) if isinstance(declared, list) else (int(declared),)
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
