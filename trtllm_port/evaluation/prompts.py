"""Prompts: read from a file, turned into tokens by a model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, PortError
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.foundation.text_files import read_lines
from trtllm_port.huggingface.tokenizers import pretrained_tokenizer

WITHOUT_TEMPLATE = "leave `--chat` out, and give the conversation as the model expects it as the prompt"
__all__ = ["Tokenizer", "load_tokenizer", "read_prompts"]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: one a line of a text file, the `prompt` or `text` of each line of a JSON Lines file.

    Raises:
        PortError: the file is absent, empty, or not of that form.
    """
    if not path.is_file():
        raise PortError(f"`{path}` is not a file", hint="give a text file with one prompt a line, or a `.jsonl` file")
    as_json = path.suffix == ".jsonl"
    with reading(path, PortError):
        lines = read_lines(path)
    prompts = [_json_prompt(path, number, line) if as_json else line for number, line in lines]
    if not prompts:
        raise PortError(f"`{path}` holds no prompts")
    return prompts


def _json_prompt(path: Path, number: int, line: str) -> str:
    with reading(path, PortError, failed=f"line {number} cannot be read"):
        value = json.loads(line)
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
        with self._reading("makes no token ids of a text"):
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
        EnvironmentLackError: it needs a package that is not installed.
    """
    if not tokenizer_dir.is_dir():
        raise ConfigError(f"`{tokenizer_dir}` is not a directory", hint="give the Hugging Face model's directory")
    tokenizer = pretrained_tokenizer(tokenizer_dir, local_files_only=True, trust_remote_code=trust_remote_code)
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
