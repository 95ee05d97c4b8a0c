"""The synthetic corpus of the demo model: short news-like articles with summaries, made from `events.toml`.

An article's first sentence says little, its facts stand in any order, and other names and numbers stand between them,
so a summary has to be composed. `make_pair("train", i)` is a pure function: any number can be made anywhere.
"""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from trtllm_port.shipped_model.corpus.names import OTHER_KINDS, Split, fill

__all__ = ["Pair", "Split", "make_pair"]

MIN_WORDS, MAX_WORDS = 60, 150
_SLOT = re.compile(r"\{(\w+)\}")
_SENTENCE_START = re.compile(r"(?:^|\. )[a-z]")


@dataclass(frozen=True)
class Event:
    """One entry of `events.toml`; see there for the meaning of the fields."""

    name: str
    slots: dict[str, str | list[str]]
    leads: list[str]
    facts: list[list[str]]
    asides: list[str]
    summary: str


@dataclass(frozen=True)
class Pair:
    """An article of 60 to 150 words with its summary of one or two sentences."""

    event: str
    article: str
    summary: str


@cache
def load_events() -> tuple[tuple[Event, ...], tuple[str, ...]]:
    """All events, and the asides that belong to every event."""
    document = tomllib.loads((files(__package__) / "events.toml").read_text("utf-8"))
    asides = tuple(sentence for group in document["asides"] for sentence in group["sentences"])
    return tuple(Event(**entry) for entry in document["event"]), asides


def _sentence(template: str, values: dict[str, str]) -> str:
    """Fill a template; a slot may stand at the front, so first letters are made capitals."""
    text = _SLOT.sub(lambda match: values[match.group(1)], template)
    return _SENTENCE_START.sub(lambda match: match.group().upper(), text)


def _aside(rng: random.Random, split: Split, template: str, values: dict[str, str]) -> str:
    """Fill an aside with values that differ from all values of the event."""
    others = dict(values)
    for slot in _SLOT.findall(template):
        if slot in values:
            continue
        kind = slot.removeprefix("other_")
        value = fill(rng, split, OTHER_KINDS.get(kind, kind))
        while value in values.values():
            value = fill(rng, split, OTHER_KINDS.get(kind, kind))
        others[slot] = value
    return _sentence(template, others)


def _values(rng: random.Random, split: Split, event: Event) -> dict[str, str]:
    """A value for every slot, all different."""
    values: dict[str, str] = {}
    for slot, kind in event.slots.items():
        value = fill(rng, split, kind)
        while value in values.values():
            value = fill(rng, split, kind)
        values[slot] = value
    return values


def make_pair(split: Split, index: int) -> Pair:
    """The article and summary number `index` of a split; the same ones every time.

    Args:
        split: "train", or "held_out", in which about half of the made-up names never occur in "train".
        index: any non-negative number.
    """
    rng = random.Random(f"{split}/{index}")
    events, common_asides = load_events()
    event = rng.choice(events)
    values = _values(rng, split, event)
    body = [_sentence(rng.choice(group), values) for group in event.facts]
    templates = rng.sample([*event.asides, *rng.sample(common_asides, 5)], len(event.asides) + 5)
    words = sum(len(sentence.split()) for sentence in body)
    wanted = rng.randrange(MIN_WORDS, 110)
    for template in templates:
        if words >= wanted:
            break
        body.append(_aside(rng, split, template, values))
        words += len(body[-1].split())
    rng.shuffle(body)
    article = " ".join([_sentence(rng.choice(event.leads), values), *body])
    return Pair(event.name, article, _sentence(event.summary, values))
