"""What both sides are fed: a long prompt, forced decode steps, and rows of unequal lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trtllm_port.errors import ConfigError, EnvironmentLackError, PortError
from trtllm_port.foundation.foreign import reading
from trtllm_port.foundation.text_files import read_text
from trtllm_port.huggingface.tokenizers import pretrained_tokenizer
from trtllm_port.layers.functional.rope import switch_length
from trtllm_port.verification.stimulus.passages import PASSAGE

DEFAULT_TOKENS = 512
LONGEST_DEFAULT = 2048  # what passes a longer window must be asked for: attention's cost is quadratic
BEYOND = 64  # tokens beyond a window or an original context, so that it shows
DECODE_STEPS = 64
ROW_STEPS = 8
ROW_LENGTHS = (96, 61, 17, 1)
CHARACTERS = 8  # of a text for each token that is wanted, to begin with
MARGIN = 32  # tokens before a cut that the cut may have changed
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True)
class Stimulus:
    """Token ids for one verification.

    Attributes:
        ids: the long prompt.
        source: where it came from, in words.
        decode_steps: how many of its last tokens are also fed one by one through the KV cache.
        rows: prompts of unequal lengths for a batch, each with `row_steps` tokens that are fed one by one.
        row_steps: see `rows`.
        limits: what the request asked for and the model cannot take, in words.
    """

    ids: tuple[int, ...]
    source: str
    decode_steps: int
    rows: tuple[tuple[int, ...], ...]
    row_steps: int
    limits: tuple[str, ...] = ()

    @property
    def row_prefill(self) -> tuple[int, ...]:
        """Length of each row's prefix that is fed at once."""
        return tuple(len(row) - self.row_steps for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return what a report says about it."""
        return {
            "tokens": len(self.ids),
            "source": self.source,
            "decode_steps": self.decode_steps,
            "batch_lengths": list(self.row_prefill),
            "batch_steps": self.row_steps if self.rows else 0,
            "limits": list(self.limits),
        }


def make_stimulus(
    model_dir: Path,
    *,
    tokens: int,
    longest: int,
    vocab_size: int,
    padding: int | None = None,
    prompt_file: Path | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Stimulus:
    """Choose the token ids.

    Args:
        model_dir: a model directory; its tokenizer is used if it has one.
        tokens: wanted length of the long prompt.
        longest: the most positions that the model takes.
        vocab_size: ids are below it.
        padding: see `random_ids`.
        prompt_file: a text to use in place of the built-in one; needs a tokenizer.
        seed: of the random ids that stand in where there is no tokenizer.
        trust_remote_code: whether a tokenizer's own code may run.

    Raises:
        ConfigError: the prompt file cannot be read, or there is no tokenizer to read it with.
    """
    limits = []
    if tokens > longest:
        limits.append(f"{tokens} tokens were asked for, the model takes {longest}")
        tokens = longest
    loaded = load_tokenizer(model_dir, trust_remote_code)
    ids, source = _text_ids(loaded, prompt_file, tokens)
    if not ids or max(ids) >= vocab_size:
        ids = random_ids(tokens, vocab_size, seed, padding)
        source = f"seeded random token ids (seed {seed}): {source}"
    if len(ids) < tokens:
        limits.append(f"{tokens} tokens were asked for, the prompt has {len(ids)}")
    decode_steps = min(DECODE_STEPS, len(ids) // 2)
    if decode_steps < DECODE_STEPS:
        limits.append(f"{decode_steps} decode steps instead of {DECODE_STEPS}")
    rows = _rows(ids)
    return Stimulus(
        ids=tuple(ids),
        source=source,
        decode_steps=decode_steps,
        rows=rows,
        row_steps=min(ROW_STEPS, len(ids) - 1) if rows else 0,
        limits=tuple(limits),
    )


def enough_tokens(config: Mapping[str, Any]) -> int:
    """Return the default length of the prompt: beyond every window and original context, if that is affordable."""
    wanted = [bound + BEYOND for bound in position_bounds(config).values()]
    return max([DEFAULT_TOKENS, *(length for length in wanted if length <= LONGEST_DEFAULT)])


def position_bounds(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the positions from which on something else happens: windows, chunks, and original context lengths.

    Args:
        config: Hugging Face's config of the language model.
    """
    bounds = {}
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        bounds["sliding window"] = int(config["sliding_window"])
    if config.get("attention_chunk_size"):
        bounds["attention chunks"] = int(config["attention_chunk_size"])
    for each in _ropes(config):
        if original := each.get("original_max_position_embeddings") or config.get("original_max_position_embeddings"):
            bounds[f"rotary scaling ({each.get('rope_type')})"] = int(original)
    return bounds


def switch_lengths(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the lengths past which the rotary embedding turns all positions by other angles than in a shorter text.

    What the KV cache holds of a shorter text then keeps the other angles, so steps past such a length give something
    else than the whole text at once, with Hugging Face as with the port.

    Args:
        config: Hugging Face's config of the language model.
    """
    longest = int(config.get("max_position_embeddings") or 0)
    found = {switch_length({**config, **each}, longest) for each in _ropes(config) if each.get("rope_type")}
    return tuple(sorted(length for length in found if length))


def without_crossings(stimulus: Stimulus, lengths: Sequence[int]) -> Stimulus:
    """Return the stimulus with steps and rows of which none passes one of the lengths while it is fed, see above."""
    tokens, steps, rows = len(stimulus.ids), stimulus.decode_steps, stimulus.rows
    for length in lengths:
        if tokens - steps <= length < tokens:
            steps = tokens - length - 1
        rows = tuple(row for row in rows if len(row) <= length)
    rows = rows if len(rows) > 1 else ()
    if (steps, rows) == (stimulus.decode_steps, stimulus.rows):
        return stimulus
    said = f"{steps} decode steps and {len(rows)} rows in a batch: none passes {' or '.join(map(str, lengths))} tokens"
    return replace(
        stimulus,
        decode_steps=steps,
        rows=rows,
        row_steps=stimulus.row_steps if rows else 0,
        limits=(*stimulus.limits, f"{said} as it grows, where all angles of the rotary embedding change"),
    )


def _ropes(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sets of rope parameters: one for all layers, or one for each type of layers."""
    rope = config.get("rope_parameters") or {}
    nested = bool(rope) and all(isinstance(each, Mapping) for each in rope.values())
    return list(rope.values()) if nested else [rope]


def load_tokenizer(model_dir: Path, trust_remote_code: bool = False) -> tuple[Any, str]:
    """Return the directory's tokenizer, or None and the reason why there is none."""
    if not any((model_dir / name).is_file() for name in TOKENIZER_FILES):
        return None, "the model directory has no tokenizer"
    try:
        return pretrained_tokenizer(model_dir, trust_remote_code=trust_remote_code), ""
    except EnvironmentLackError as error:
        return None, f"{error.message}: {error.hint}"
    except PortError as error:
        return None, error.message


def _text_ids(loaded: tuple[Any, str], prompt_file: Path | None, tokens: int) -> tuple[list[int], str]:
    tokenizer, lack = loaded
    if prompt_file is not None:
        if tokenizer is None:
            raise ConfigError(f"`{prompt_file}` cannot be used: {lack}", hint="leave out `--prompt-file`")
        return encode(tokenizer, read_prompt(prompt_file), tokens), f"`{prompt_file}`"
    if tokenizer is None:
        return [], lack
    ids = encode(tokenizer, PASSAGE, tokens)
    source = "the built-in passage, by the model's tokenizer"
    if len(ids) < tokens:
        ids = (ids * -(-tokens // len(ids)))[:tokens]
        source += ", repeated"
    return ids, source


def read_prompt(prompt_file: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    try:
        text = read_text(prompt_file)
    except OSError as error:
        raise ConfigError(f"the prompt file `{prompt_file}` cannot be read: {error}") from error
    except PortError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    if not text.strip():
        raise ConfigError(f"the prompt file `{prompt_file}` is empty")
    return text


def encode(tokenizer: Any, text: str, tokens: int) -> list[int]:
    """The first tokens of a text, of which no more is read than they need: tokenizers are slow on long lines."""
    length = CHARACTERS * (tokens + MARGIN)
    while True:
        with reading(getattr(tokenizer, "name_or_path", "the tokenizer"), ConfigError, failed="cannot tokenize"):
            ids: list[int] = tokenizer(text[:length], truncation=False, verbose=False)["input_ids"]
        if length >= len(text) or len(ids) >= tokens + MARGIN:
            return ids[:tokens]
        length *= 4


def random_ids(tokens: int, vocab_size: int, seed: int, padding: int | None) -> list[int]:
    """Return random token ids, none of which is padding: no text has any, and some models do not count its positions.

    Args:
        tokens: how many.
        vocab_size: ids are below it.
        seed: same seed, same ids.
        padding: the id of the padding token, None if there is none.
    """
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(vocab_size, (tokens,), generator=generator).tolist()
    return [(each + 1) % vocab_size if each == padding else each for each in ids]


def _rows(ids: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Cut rows of unequal lengths out of the prompt, each from another place so that no row equals another's start."""
    steps = min(ROW_STEPS, len(ids) - 1)
    lengths = sorted({min(length, len(ids) - steps) for length in ROW_LENGTHS}, reverse=True)
    if len(lengths) < 2 or steps < 1:
        return ()
    room = [len(ids) - length - steps for length in lengths]
    starts = [room[b] * b // len(lengths) for b in range(len(lengths))]
    return tuple(tuple(ids[start : start + n + steps]) for start, n in zip(starts, lengths, strict=True))
