"""Tracing configurations: the user's config at sizes that are small and all different.

Every number that the traced computation shows is compared over these configurations, so sizes that must be told apart
must differ in at least one of them. Options, patterns and switches stay as they are. A further size is kept for the
check of the finished port (`check.py`).

A model may refuse sizes that are all different, so each way of changing them (`resizing.Plan`) is tried until the model
can be built and run: freely first, then with one exception, then with products between sizes kept.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch

from trtllm_port.codegen.configs.computed_keys import computed_values
from trtllm_port.codegen.configs.depth import (
    find_depth,
    layer_count_key,
    lengthen,
    require_small,
    require_small_on_paper,
    shorten,
)
from trtllm_port.codegen.configs.resizing import Plan, equal_keys, resize, resized_keys, sums
from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS, META_KEYS, SIZES
from trtllm_port.errors import EnvironmentLackError, UnsupportedModelError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.loading import EAGER, make_model
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.layers.config.per_layer import as_arguments, per_layer_keys, plain_values

__all__ = [
    "LAYER_COUNTS",
    "META_KEYS",
    "SAMPLES",
    "SIZES",
    "Sample",
    "Samples",
    "config_content",
    "config_values",
    "layer_count",
    "layer_count_key",
    "make_config",
    "make_samples",
    "run_once",
    "unseen_config",
]

SAMPLES = 4
BATCH = (2, 3, 5, 4)
LENGTH = (11, 13, 12, 17)
MORE_LAYERS = (0, 1, 0, 0, 2)  # than suffice, by column: a number of layers is no other number everywhere
PAST = (6, 4, 5, 7)  # tokens in the cache before the traced step, so that key and query lengths differ
MOST_PLANS = 60  # are tried
_found: dict[str, Samples] = {}


@dataclass(frozen=True)
class Sample:
    """One configuration (a Hugging Face config) to trace, and the sizes of the example input."""

    config: Any
    batch: int
    length: int
    past: int

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config's keys and values, as `config_values` gives them, and what its class computes of them."""
        return {**config_values(self.config), **self.computed}

    @cached_property
    def computed(self) -> dict[str, Any]:
        """See `computed_values`."""
        return computed_values(self.config, config_values(self.config))

    def with_values(self, changes: dict[str, Any]) -> Sample:
        """The same sample with some keys of the config changed; raises whatever the config class raises for them."""
        values = {**config_values(self.config), **changes}
        return replace(self, config=make_config(self.config, values))


@dataclass(frozen=True)
class Samples:
    """The small versions of a config.

    Attributes:
        traced: those to trace.
        unseen: of a size that no trace has: other widths, heads, layers, vocabulary, window.
        plan: how their sizes were chosen.
        coupled: keys of the config that vary in proportion to others only.
    """

    traced: tuple[Sample, ...]
    unseen: Any
    plan: Plan
    coupled: tuple[str, ...]

    def at_first_step(self) -> Samples:
        """The same, to trace the first step of a text each: no tokens are in the cache before it."""
        return replace(self, traced=tuple(replace(sample, past=0) for sample in self.traced))

    def vary(self, key: str) -> bool:
        """Whether a key of the config differs between those that are traced."""
        first, *others = (sample.values.get(key) for sample in self.traced)
        return any(other != first for other in others)


def config_values(config: Any) -> dict[str, Any]:
    """The config's keys and values as JSON types, derived ones included, without those of `META_KEYS`."""
    plain = plain_values(config)
    values = {key: value for key, value in plain.items() if key not in META_KEYS and not key.startswith("_")}
    return dict(json.loads(json.dumps(values, default=str)))


def config_content(config: Any, architecture: str) -> dict[str, Any]:
    """What a small model's `config.json` holds, whatever made it and whatever data type it had."""
    values = {
        key: value for key, value in config.to_diff_dict().items() if key not in ("transformers_version", "dtype")
    }
    values |= {"architectures": [architecture], "model_type": config.model_type}
    return dict(json.loads(json.dumps(values)))


def make_config(like: Any, values: dict[str, Any]) -> Any:
    """A config of the class of `like` with these values, for the same architecture."""
    config = type(like)(**copy.deepcopy(as_arguments(values, per_layer_keys(like))))
    config.architectures = like.architectures
    return config


def layer_count(config: Any) -> int:
    """How many decoder layers a config asks for; 0 if it does not say so."""
    values = config_values(config)
    values |= computed_values(config, values)
    key = layer_count_key(values)
    return int(values[key]) if key is not None else 0


def make_samples(config: Any) -> Samples:
    """Small versions of `config`.

    Raises:
        Exception: what Hugging Face's code raises at all of the sizes that were tried; the first is the one told.
    """
    kind = f"{type(config).__module__}.{type(config).__qualname__} {config.architectures}"
    key = f"{kind} {json.dumps(config_values(config), sort_keys=True)}"
    if key not in _found:
        with quiet_transformers():
            _found[key] = _make_samples(config)
    return replace(_found[key], unseen=copy.deepcopy(_found[key].unseen))


def unseen_config(config: Any) -> Any:
    """A small version of `config` of a size that no trace has.

    Raises:
        UnsupportedModelError: Hugging Face's code makes no model of it that runs.
    """
    with reading(type(config).__name__, UnsupportedModelError, failed="makes no model that runs"):
        return make_samples(config).unseen


def _make_samples(config: Any) -> Samples:
    values = config_values(config)
    depth = find_depth(config, values, partial(make_config, config))
    longer = partial(lengthen, values, config, depth, read_back=lambda of: config_values(make_config(config, of)))
    by_depth = [longer(more=more) if more else shorten(values, config, depth) for more in range(MORE_LAYERS[-1] + 1)]
    columns = [(index, by_depth[more]) for index, more in enumerate(MORE_LAYERS)]
    first: Exception | None = None
    for plan in islice(_plans(config, values), MOST_PLANS):
        try:
            configs = []
            for index, of_depth in reversed(columns):  # the unseen one first: its sizes are the roundest
                configs.append(make_config(config, resize(config, of_depth, plan, index)))
                run_once(configs[-1])
        except EnvironmentLackError:
            raise
        except Exception as error:  # any: it is Hugging Face's code that runs here
            first = error if first is None else first
            continue
        unseen, *traced = configs
        samples = zip(reversed(traced), BATCH, LENGTH, PAST, strict=True)
        return Samples(tuple(Sample(*sample) for sample in samples), unseen, plan, tuple(sorted(plan.coupled(values))))
    assert first is not None  # at least one plan was tried
    raise first


def _plans(config: Any, values: dict[str, Any]) -> Iterator[Plan]:
    """The simple ones first, then those with an exception."""
    keys = resized_keys(config, values)
    derived = frozenset(_derived(config, values, keys))
    heads, dims = equal_keys(values)
    plans = [Plan(omitted=omitted) for omitted in dict.fromkeys((frozenset[str](), derived))]
    plans += [Plan(equal=(pair,)) for pair in heads if len(heads) > 1]
    plans += [replace(plan, equal=heads) for plan in plans if not plan.equal] if heads else []
    plans += [Plan(equal=(*heads, pair)) for pair in dims]
    plans += [Plan(keep="heads"), Plan(keep="widths")]
    plans += [Plan(equal=(*heads, total)) for total in sums(values)]
    yield from plans
    for plan in plans:
        yield from plan.variants(keys)


def _derived(config: Any, values: dict[str, Any], keys: dict[str, Any]) -> Iterator[str]:
    """Keys that the config class computes from others when they are left out."""
    full = resize(config, values, Plan(), 0)
    for key in keys:
        with suppress(Exception):  # any: the class may need the key
            filled = config_values(make_config(config, {name: value for name, value in full.items() if name != key}))
            alone = config_values(type(config)())
            if key in filled and filled[key] not in (full[key], values[key], alone.get(key)):
                yield key


def run_once(config: Any) -> None:
    """Build a config's model and give it some tokens.

    Raises:
        Exception: what Hugging Face's code raises.
        UnsupportedModelError: the model is large.
    """
    require_small_on_paper(config)  # many are tried, and what is large would take long
    with require_small():
        model = make_model(config, dtype=torch.float32, attention=EAGER, experts=EAGER).eval()
    with torch.no_grad():
        model(input_ids=torch.full((2, 7), 3), use_cache=False)
