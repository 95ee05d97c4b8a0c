"""The text that a loss is measured on: real text in windows of one length, each an own beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError
from trtllm_port.shipped_model.corpus import make_pair
from trtllm_port.verification.stimulus.passages import PASSAGE
from trtllm_port.verification.stimulus.stimulus import encode, load_tokenizer, random_ids, read_prompt

TOKENS = 4096  # whose next token is predicted; fewer only of a text that has no more
WINDOW = 256  # tokens that a model is given at once
ARTICLES, MOST_ARTICLES = 64, 1024
SHIPPED = "a passage and made-up news articles that ship with trtllm-port, by the model's tokenizer"


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Token ids, of which every window has as many.

    Attributes:
        ids: of each window, the tokens that are fed and one more, the last one's next.
        source: where they came from, in words.
        vocab_size: ids are below it.
    """

    ids: tuple[tuple[int, ...], ...]
    source: str
    vocab_size: int

    @property
    def length(self) -> int:
        """How many tokens of a window are fed; as many predictions are judged."""
        return len(self.ids[0]) - 1

    @property
    def tokens(self) -> int:
        """How many predictions there are in all windows."""
        return self.length * len(self.ids)


def make_windows(
    model_dir: Path,
    *,
    vocab_size: int,
    longest: int,
    padding: int | None = None,
    prompt_file: Path | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Windows:
    """Choose the text.

    Args:
        model_dir: a model directory; its tokenizer is used if it has one.
        vocab_size: ids are below it.
        longest: the most positions that the model takes.
        padding: see `random_ids`.
        prompt_file: a text to use in place of the one that ships with the package; needs a tokenizer.
        seed: of the random ids that stand in where there is no tokenizer.
        trust_remote_code: whether a tokenizer's own code may run.

    Raises:
        ConfigError: the prompt file cannot be read, is too short, or there is no tokenizer to read it with.
    """
    length = min(WINDOW, longest)
    count = -(-TOKENS // length)
    wanted = count * length + 1
    tokenizer, lack = load_tokenizer(model_dir, trust_remote_code)
    if prompt_file is not None and tokenizer is None:
        raise ConfigError(f"`{prompt_file}` cannot be used: {lack}", hint="leave out `--prompt-file`")
    ids, source = list[int](), lack
    if prompt_file is not None:
        ids, source = encode(tokenizer, read_prompt(prompt_file), wanted), f"`{prompt_file}`, by the model's tokenizer"
    elif tokenizer is not None:
        ids, source = _shipped(tokenizer, wanted), SHIPPED
    if not ids or max(ids) >= vocab_size:
        if ids:
            source = f"the tokenizer has ids beyond the vocabulary of {vocab_size}"
        ids, tokenizer = random_ids(wanted, vocab_size, seed, padding), None
        source = f"seeded random token ids (seed {seed}), which are no text: {source}"
    return Windows(ids=_cut(ids, length, _beginning(tokenizer, ids)), source=source, vocab_size=vocab_size)


def _shipped(tokenizer: Any, wanted: int) -> list[int]:
    """Tokens of as many articles as it takes: no text is repeated, for a model predicts what it has seen."""
    articles, ids = ARTICLES, list[int]()
    while len(ids) < wanted and articles <= MOST_ARTICLES:
        texts = [PASSAGE, *(make_pair("held_out", number).article for number in range(articles))]
        ids = encode(tokenizer, "\n\n".join(texts), wanted)
        articles *= 2
    return ids


def _beginning(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """What the tokenizer puts before a text; some models predict nothing sensible without it."""
    first = getattr(tokenizer, "bos_token_id", None)
    return [first] if first is not None and ids[0] == first else []


def _cut(ids: Sequence[int], length: int, beginning: list[int]) -> tuple[tuple[int, ...], ...]:
    text = ids[len(beginning) :]
    own = length + 1 - len(beginning)  # of a window; without a beginning, its last token is the next one's first
    if len(text) < own:
        length, own = len(beginning) + len(text) - 1, len(text)
    if length < 1:
        raise ConfigError(
            f"the text has {len(ids)} tokens, at least 2 are needed", hint="give a longer `--prompt-file`"
        )
    starts = range(0, len(text) - own + 1, length)
    return tuple((*beginning, *text[start : start + own]) for start in starts)
