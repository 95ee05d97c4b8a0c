"""Prompts: read from a file, turned into tokens by a model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, PortError
from trtllm_port.text_files import read_lines
from trtllm_port.tokenizer_packages import missing_package

WITHOUT_TEMPLATE = "leave `--chat` out, and give the conversation as the model expects it as the prompt"
__all__ = ["Tokenizer", "load_tokenizer", "read_prompts"]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: one a line of a text file, the `prompt` or `text` of each line of a JSON Lines file.

    Raises:
        PortError: the file is absent, empty, or not of that form.
    """
    if not path.is_file():
        raise PortError(f"`{path}` is not a file", hint="give a text file with one prompt a line, or a `.jsonl` file")
    lines, as_json = read_lines(path), path.suffix == ".jsonl"
    prompts = [_json_prompt(path, number, line) if as_json else line for number, line in lines]
    if not prompts:
        raise PortError(f"`{path}` holds no prompts")
    return prompts


def _json_prompt(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PortError(f"`{path}`, line {number} is not JSON: {error}") from error
    keys = ("prompt", "text") if isinstance(value, dict) else ()
    text = value if isinstance(value, str) else next((value[key] for key in keys if key in value), None)
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
            PortError: the text has half a surrogate pair in it, as bytes that are no text become on a command line.
            ConfigError: there is no chat template, or it does not render such a turn.
        """
        if (half := next((place for place, each in enumerate(text) if "\ud800" <= each <= "\udfff"), None)) is not None:
            raise PortError(f"the prompt is no Unicode text: half a surrogate pair at character {half}")
        return self._one_turn(text) if chat else list(self.tokenizer(text)["input_ids"])

    def _one_turn(self, text: str) -> list[int]:
        templates = self.tokenizer.chat_template
        if not templates:
            raise ConfigError("the tokenizer has no chat template", hint="leave `--chat` out")
        if isinstance(templates, dict) and "default" not in templates:  # named ones; transformers takes the default
            raise ConfigError(
                f"the tokenizer has the chat templates {', '.join(map(repr, templates))}, and none called 'default'",
                hint=WITHOUT_TEMPLATE,
            )
        turns = [{"role": "user", "content": text}]
        try:
            templated = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        except Exception as error:  # any: a template is a program of the model's
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"the chat template does not render one turn of the user: {reason}", hint=WITHOUT_TEMPLATE
            ) from error
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
        EnvironmentLackError: it needs a package that is not installed.
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
        raise missing_package(tokenizer_dir, error) or ConfigError(
            f"transformers cannot load a tokenizer from `{tokenizer_dir}`: {reason[0]}",
            hint="`--trust-remote-code` lets it run"
            if "trust_remote_code" in str(error)
            else "give the directory of the Hugging Face model, with its `tokenizer.json`",
        ) from error
    return Tokenizer(tokenizer, _eos_token_ids(tokenizer_dir, tokenizer))


def _eos_token_ids(directory: Path, tokenizer: Any) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        file = directory / name
        declared = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        if declared is not None:
            return tuple(declared) if isinstance(declared, list) else (int(declared),)
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
