"""Train the demo model's tokenizer: byte-level BPE over the synthetic corpus, one token per digit.

python -m trtllm_port.shipped_model.make_tokenizer [--output-dir DIR]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtllm_port.huggingface.tokenizers import tokenizer_of
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.shipped_model.corpus import make_pair
from trtllm_port.shipped_model.corpus.names import CLASSES

VOCAB_SIZE = 1024
END = "<|endoftext|>"
SUFFIX = " TL;DR:"
"""What stands between an article and its summary, as in the prompts of `summarize`."""

_PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern, but every digit is a piece of its own, which makes numbers easy to copy."""


_CLASS_WORDS = re.compile(rf" (?:{'|'.join(word for words in CLASSES.values() for word in words)})\b")


def _texts(count: int) -> Iterator[str]:
    """The corpus without months, weekdays and the like, so that none of these becomes one token.

    They stand in equal contexts: as single tokens they turn into one and the same embedding before the model has
    learned to copy, and then it cannot tell them apart. In pieces that names share they are copied as names are.
    """
    for index in range(count):
        pair = make_pair("train", index)
        yield _CLASS_WORDS.sub("", f"{pair.article}{SUFFIX} {pair.summary}")


def train_tokenizer(articles: int = 20_000) -> Any:
    """One of transformers with `VOCAB_SIZE` entries; `END` is its only special token and is not added to prompts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(articles), trainer)
    return tokenizer_of(
        tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def main() -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    parser = argparse.ArgumentParser(description="train the demo model's tokenizer")
    parser.add_argument("--output-dir", type=Path, default=MODEL_DIR)
    train_tokenizer().save_pretrained(parser.parse_args().output_dir)


if __name__ == "__main__":
    main()
