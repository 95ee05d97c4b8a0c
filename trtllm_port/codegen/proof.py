"""The proof that a port follows what it reads: configurations in which many keys differ at once.

Every key was changed alone, and all sizes together. An expression may fit that by chance, and keys may act only
together. What the port does not follow then becomes a value that is built in, and `convert` refuses another.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Protocol

from trtllm_port.codegen.configs.mixing import changed, differing, mixed
from trtllm_port.codegen.configs.sizes import Sample, Samples
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.anti_unification import NotMergeable
from trtllm_port.codegen.solve.not_expressible import NotExpressible
from trtllm_port.codegen.write.classes import ClassText
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.models import first_line

CHALLENGES = 6  # configurations in which many keys differ at once


class Explored(Protocol):
    """What is known of a model so far; see `Exploration`."""

    samples: list[Lowered]
    classes: list[ClassText]
    small: Samples
    options: dict[str, list[Any]]
    pinned: set[str]
    ledger: Ledger
    values: dict[str, Any]
    progress: Progress

    def lower_sample(self, sample: Sample) -> Lowered:
        """Trace a configuration."""

    def write_classes(self, samples: list[Lowered]) -> list[ClassText]:
        """The classes over some samples; raises NotMergeable, NotExpressible or UnsupportedModelError."""

    def worse(self, classes: list[ClassText]) -> str | None:
        """Why what would follow more than the classes do is not worth it; None if it is."""


def prove(found: Explored) -> None:
    """Try configurations in which many keys differ at once; what the port does not follow then is built in."""
    for number in range(CHALLENGES):
        found.progress("prove", number, CHALLENGES)
        options = {key: values for key, values in found.options.items() if key not in found.pinned}
        share = 0.5 if number else 1.0  # two that act only together are both changed where all are
        base, sample = mixed(found.small, options, random.Random(number), share=share) or (None, None)
        while base is not None and sample is not None and (problem := _problem(found, sample)) is not None:
            key = _pin(found, base, sample, problem)
            wanted = {name: value for name, value in differing(base, sample).items() if name != key}
            sample = _like(sample, changed(base, wanted)) if key is not None else None


def _problem(found: Explored, sample: Sample) -> str | None:
    """Why the classes do not follow a configuration; they are refined where that suffices."""
    try:
        traced = found.lower_sample(sample)
        classes = found.write_classes([*found.samples, traced])
    except (NotMergeable, NotExpressible, UnsupportedModelError) as error:
        return first_line(error)
    except Exception:  # any: Hugging Face's code was given values that it may not be made for
        return None
    if [text.lines for text in classes] == [text.lines for text in found.classes]:
        return None
    if (worse := found.worse(classes)) is not None:
        return worse
    found.samples.append(traced)
    found.classes = classes
    return None


def _pin(found: Explored, base: Sample, other: Sample, problem: str) -> str | None:
    """Build in a key of those that differ and that the port does not follow together; None if there is none."""
    culprits = _culprits(found, base, other)
    options = [key for key, value in culprits.items() if value in found.options.get(key, [])]
    if not options:  # sizes alone: mixed at will they need not divide evenly, as those of a model do
        return None
    key = max(options, key=lambda key: (_is_switch(culprits[key]), key in found.ledger.ignored))
    together = ", ".join(f"{name}={value!r}" for name, value in culprits.items())
    found.ledger.notes[key] = f"with {together}: {problem}"
    found.pinned.add(key)
    if not found.small.vary(key):
        found.ledger.ignored.pop(key, None)
        found.ledger.accepted.pop(key, None)
        found.ledger.fixed[key] = found.values.get(key)
    sized = [sample.values.get(key) for sample in found.small.traced]
    kept = [sample for sample in found.samples if sample.trace.sample.values.get(key) in sized]
    found.samples, found.classes = kept, found.write_classes(kept)
    return key


def _culprits(found: Explored, base: Sample, other: Sample) -> dict[str, Any]:
    """The fewest keys that make the difference between what the port follows and what it does not."""
    wanted = differing(base, other)
    groups = [[key for key in wanted if key not in found.options], *([key] for key in wanted if key in found.options)]
    groups = [group for group in groups if group]
    for whole in (True, False):  # the sizes together first
        for group in list(groups):
            fewer = {key: wanted[key] for rest in groups if rest is not group for key in rest}
            sample = _like(other, changed(base, fewer))
            if sample is not None and _problem(found, sample) is not None:
                groups.remove(group)
        if whole:
            groups = [[key] for group in groups for key in group]
    return {key: wanted[key] for group in groups for key in group}


def _is_switch(value: Any) -> bool:
    """Whether a value says how something is computed, not how large it is."""
    return value is None or isinstance(value, bool | str)


def _like(sample: Sample, other: Sample | None) -> Sample | None:
    """Another configuration, traced with as many tokens as one."""
    return other and replace(other, batch=sample.batch, length=sample.length, past=sample.past)
