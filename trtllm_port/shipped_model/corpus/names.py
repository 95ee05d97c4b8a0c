"""Made-up names, places and figures: what fills the slots of `events.toml`.

Names are put together from syllables, so that there are tens of thousands. One in eight (by checksum, so that it needs
no list) is *reserved*: it never appears in a training article. In held-out articles about half the names are.
"""

from __future__ import annotations

import random
import re
import tomllib
import zlib
from collections.abc import Callable
from importlib.resources import files
from typing import Literal

Split = Literal["train", "held_out"]

_WORDS = tomllib.loads((files(__package__) / "words.toml").read_text("utf-8"))
_SYLLABLES: dict[str, list[str]] = _WORDS["syllables"]
CLASSES: dict[str, list[str]] = _WORDS["classes"]
"""Words that take each other's place: months, weekdays, kinds of companies, ..."""

_DOUBLE_VOWEL = re.compile("[aeiou]{2}")

RESERVED_SHARE = 8
"""One made-up name in this many is kept for the held-out split."""


def is_reserved(name: str) -> bool:
    """Whether a made-up name (one word) is kept out of the training split."""
    return zlib.crc32(name.encode()) % RESERVED_SHARE == 0


def _made_up(rng: random.Random, split: Split, ends: str) -> str:
    """One made-up word; reserved words only in the held-out split, there every second time."""
    wanted = split == "held_out" and rng.random() < 0.5
    while True:
        word = "".join(rng.choice(_SYLLABLES[part]) for part in ("onsets", "nuclei", ends))
        if is_reserved(word) == wanted and not _DOUBLE_VOWEL.search(word):
            return word


def _place(rng: random.Random, split: Split) -> str:
    return _made_up(rng, split, "place_ends")


def _last(rng: random.Random, split: Split) -> str:
    return _made_up(rng, split, "last_ends")


def _person(rng: random.Random, split: Split) -> str:
    return f"{_made_up(rng, split, 'first_ends')} {_last(rng, split)}"


def _money(rng: random.Random, split: Split) -> str:
    amount = f"{rng.randrange(1, 10)}.{rng.randrange(1, 10)}" if rng.random() < 0.5 else str(rng.randrange(10, 100))
    return f"${amount} million"


def _score(rng: random.Random, split: Split) -> str:
    loser = rng.randrange(0, 4)
    return f"{loser + rng.randrange(1, 4)}-{loser}"


_KINDS: dict[str, Callable[[random.Random, Split], str]] = {
    "place": _place,
    "person": _person,
    "company": lambda rng, split: f"{_last(rng, split)} {rng.choice(CLASSES['company'])}",
    "team": lambda rng, split: f"{_place(rng, split)} {rng.choice(CLASSES['club'])}",
    "ground": lambda rng, split: f"{_last(rng, split)} {rng.choice(CLASSES['ground'])}",
    "prize": lambda rng, split: f"{_last(rng, split)} {rng.choice(CLASSES['prize'])}",
    "money": _money,
    "score": _score,
    "date": lambda rng, split: f"{rng.randrange(1, 29)} {rng.choice(CLASSES['month'])}",
    "month": lambda rng, split: rng.choice(CLASSES["month"]),
    "weekday": lambda rng, split: rng.choice(CLASSES["weekday"]),
    "year": lambda rng, split: str(rng.randrange(1900, 2020)),
    "few": lambda rng, split: rng.choice(CLASSES["few"]),
    "tens": lambda rng, split: str(rng.randrange(13, 100)),
    "hundreds": lambda rng, split: str(rng.randrange(100, 1000)),
    "thousands": lambda rng, split: f"{rng.randrange(2, 90)},{rng.randrange(1000):03d}",
    "percent": lambda rng, split: str(rng.randrange(2, 40)),
    "speed": lambda rng, split: str(rng.randrange(80, 190)),
    "minute": lambda rng, split: str(rng.randrange(2, 90)),
}

OTHER_KINDS = {"count": "hundreds", "cost": "money"}
"""Slots of asides are called `other_<kind>`; these two have a kind of another name."""


def fill(rng: random.Random, split: Split, kind: str | list[str]) -> str:
    """One value of a slot: a kind from the table, or one of a list."""
    return rng.choice(kind) if isinstance(kind, list) else _KINDS[kind](rng, split)
