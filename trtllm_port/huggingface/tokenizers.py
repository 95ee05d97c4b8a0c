"""Tokenizers of transformers; and why one cannot be loaded, and which package it needs.

That is what transformers says, corrected where it guesses: it takes a `tokenizer.model` that it cannot read as
SentencePiece for a file of tiktoken, whatever the reason was, and then asks for tiktoken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, EnvironmentLackError, PortError
from trtllm_port.foundation.foreign import reading

__all__ = ["missing_package", "pretrained_tokenizer", "tokenizer_of"]

SAID = (
    re.compile(r"requires the ([\w.-]+) library but it was not found"),
    re.compile(r"need to install ([\w.-]+) to use"),
    re.compile(r"^`([\w.-]+)` is required to read"),
    re.compile(r"following packages that were not found in your environment: ([\w., -]+?)\. Run"),
)
MODULES = {"protobuf": "google.protobuf", "mistral-common": "mistral_common"}
"""Of packages whose module has another name."""
SENTENCEPIECE = ("sentencepiece", "protobuf")
"""Both are needed to read its files."""
TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s*\Z")


def pretrained_tokenizer(directory: Path, *, trust_remote_code: bool = False, local_files_only: bool = False) -> Any:
    """The tokenizer of a directory.

    Args:
        directory: of a Hugging Face model.
        trust_remote_code: whether its own Python code may run.
        local_files_only: whether nothing is taken from the hub, not even code that the directory refers to.

    Raises:
        EnvironmentLackError: the tokenizer needs a package that is not installed.
        ConfigError: transformers cannot load it for another reason.
    """
    from transformers import AutoTokenizer

    with _loading(directory):
        return AutoTokenizer.from_pretrained(
            directory, local_files_only=local_files_only, trust_remote_code=trust_remote_code
        )


def tokenizer_of(trained: Any, **special: Any) -> Any:
    """A tokenizer of transformers around one of the package `tokenizers`.

    Args:
        trained: a `tokenizers.Tokenizer`.
        special: what it does not know of itself: `eos_token`, `model_max_length` and so on.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=trained, **special)


@contextmanager
def _loading(directory: Path) -> Iterator[None]:
    """What transformers raises within the block, which loads a directory's tokenizer, becomes an error about it."""
    hint = "give the directory of the Hugging Face model, with its `tokenizer.json`"
    try:
        with reading(directory, ConfigError, hint=hint, failed="has no tokenizer that transformers can load"):
            yield
    except PortError as error:
        if "trust_remote_code" in str(error.__cause__):
            error.hint = "`--trust-remote-code` lets it run"
        raise missing_package(directory, error) or error from error.__cause__


def missing_package(directory: Path, error: BaseException) -> EnvironmentLackError | None:
    """What to raise where a tokenizer cannot be loaded because a package is not there; None for another reason.

    Args:
        directory: of the tokenizer.
        error: what transformers raised.
    """
    named = {package for each in _chain(error) for package in _named_in(each)}
    if "tiktoken" in named and (model := _sentencepiece_model(directory)) is not None:
        named = named - {"tiktoken"} | set(SENTENCEPIECE)
        what = f"`{model}` is a file of SentencePiece, which"
    else:
        what = f"the tokenizer in `{directory}`"
    missing = sorted(package for package in named if not _installed(package))
    if not missing:
        return None
    names = " and ".join(f"`{package}`" for package in missing)
    return EnvironmentLackError(f"{what} needs {names}, not installed here", hint=f"`pip install {' '.join(missing)}`")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _named_in(error: BaseException) -> list[str]:
    """The packages that one error asks for."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name
        package = next((package for package, name in MODULES.items() if module.startswith(name)), None)
        return [package or module.partition(".")[0]]
    if not isinstance(error, ImportError | ValueError):
        return []
    found = next((match[1] for pattern in SAID if (match := pattern.search(str(error).strip()))), "")
    return [name.strip().lower() for name in found.split(",") if name.strip()]


def _installed(package: str) -> bool:
    try:
        return find_spec(MODULES.get(package, package)) is not None
    except ModuleNotFoundError:  # of the package that a dotted name is in
        return False


def _sentencepiece_model(directory: Path) -> Path | None:
    """A vocabulary file that is not lines of tiktoken: a token in base 64 and its rank."""
    for path in sorted(directory.glob("*.model")):
        with path.open("rb") as file:
            if TIKTOKEN_LINE.match(file.readline(4096)) is None:
                return path
    return None
