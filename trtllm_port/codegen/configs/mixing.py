"""Configurations that nobody chose: sizes of several traced ones in one, with options that were tried one by one.

What fits the traced configurations, in which all sizes change together and every option alone, need not fit these.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS
from trtllm_port.codegen.configs.sizes import Sample, Samples, config_values, run_once
from trtllm_port.huggingface.quiet import quiet_transformers

DRAWS = 8  # until Hugging Face's code accepts one
_RARER = 0.8  # each time it refuses, less is changed


def mixed(
    samples: Samples, options: Mapping[str, Sequence[Any]], draw: random.Random, *, share: float = 0.5
) -> tuple[Sample, Sample] | None:
    """A traced configuration, and that one with sizes of others and with some of the options; None if none is accepted.

    Args:
        options: key → values that it may have instead.
        share: of the options that are changed.
    """
    base = draw.choice(samples.traced)
    for _ in range(DRAWS):
        changes = {key: draw.choice(list(values)) for key, values in options.items() if draw.random() < share}
        changes = {**_sizes(base, samples, draw), **changes}
        if (found := changed(base, changes)) is not None:
            batch, length, past = draw.randint(2, 4), draw.randint(9, 18), draw.randint(3, 8)
            return base, replace(found, batch=batch, length=length, past=past if base.past else 0)
        share *= _RARER
    return None


def changed(base: Sample, changes: Mapping[str, Any]) -> Sample | None:
    """A configuration with some keys changed; None if Hugging Face's code does not run with it."""
    try:
        with quiet_transformers():
            found = base.with_values(dict(changes))
            run_once(found.config)
    except Exception:  # any: it is Hugging Face's code that runs here
        return None
    return found


def differing(base: Sample, other: Sample) -> dict[str, Any]:
    """The keys that differ between two configurations, with the other's values."""
    ours, theirs = config_values(base.config), config_values(other.config)
    return {key: value for key, value in theirs.items() if ours.get(key) != value}


def _sizes(base: Sample, samples: Samples, draw: random.Random) -> dict[str, Any]:
    tables = [config_values(sample.config) for sample in samples.traced]
    own = config_values(base.config)
    kept = {*samples.coupled, *LAYER_COUNTS}
    found = {}
    for key, value in own.items():
        column = [table.get(key) for table in tables]
        if key in kept or not _numbers(column) or len(set(column)) < 2:
            continue
        if (other := draw.choice(column)) != value:
            found[key] = other
    return found


def _numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)
