"""The proof that a port follows what it reads: configurations in which many keys differ at once.

Every key was changed alone, and all sizes together. An expression may fit that by chance, and keys may act only
together. What the port does not follow then becomes a value that is built in, and `convert` refuses another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trtllm_port.codegen.configs.alternatives import TYPE
from trtllm_port.codegen.configs.mixing import changed, differing, mixed
from trtllm_port.codegen.configs.sizes import Sample, Samples
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.anti_unification import NotMergeable
from trtllm_port.codegen.solve.not_expressible import NotExpressible
from trtllm_port.codegen.write.classes import ClassText, same_classes
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.models import first_line
from trtllm_port.layers.config.built_in import parameter_sets

CHALLENGES = 6  # configurations in which many keys differ at once
TRIES = 240  # configurations that are written to narrow down keys; one takes a large model some seconds
LITTLE = 4  # lines that a port may become longer to follow keys that act only together


class Explored(Protocol):
    """What is known of a model so far; see `Exploration`."""

    samples: list[Lowered]
    written: list[Lowered]
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

    def worse(self, classes: list[ClassText], longer: int) -> str | None:
        """Why what would follow more than the classes do, by more than some lines, is not worth it; None if it is."""


class Tries:
    """How many configurations may still be written to find out which of many keys the port does not follow together."""

    def __init__(self, left: int = TRIES) -> None:
        self.left = left

    def take(self) -> None:
        """Take one; `NoTriesLeft` if there is none."""
        if not self.left:
            raise NoTriesLeft
        self.left -= 1


class NoTriesLeft(Exception):
    """Which keys matter was not found out in as many tries as there are."""


def prove(found: Explored, tries: Tries | None = None) -> None:
    """Try configurations in which many keys differ at once; what the port does not follow then is built in."""
    tries = tries or Tries()
    _prove_written(found, tries)
    for number in range(CHALLENGES):
        found.progress("prove", number, CHALLENGES)
        share = 0.5 if number else 1.0  # two that act only together are both changed where all are
        base, sample = mixed(found.small, found.options, random.Random(number), share=share) or (None, None)
        if base is not None and sample is not None:
            _prove(found, base, sample, tries)


def _prove_written(found: Explored, tries: Tries) -> None:
    """Try again what was followed before the classes were refined; most often that is followed still."""
    if found.written and _problem(found, found.written, refine=False) is not None:
        for traced in found.written:
            _prove(found, found.small.traced[0], traced.trace.sample, tries)


def _prove(found: Explored, base: Sample, other: Sample, tries: Tries) -> None:
    """Follow, or build in, keys of those that differ until the whole is followed.

    What is followed is learned where the fewest keys differ: no other key can then be taken for the one that decides.
    Where that does not suffice, one is built in: the classes would be refined for ever.
    """
    sample: Sample | None = other
    learned: list[dict[str, Any]] = []
    while sample is not None and (problem := _untraced_problem(found, sample)) is not None:
        before = found.classes
        culprits, least = _culprits(found, base, sample, tries)
        if least is not None and least.values not in learned:
            learned.append(least.values)
            problem = _untraced_problem(found, least, refine=True) or problem
        if found.classes is not before:  # they were refined
            continue
        if not culprits:
            return
        if least is None:
            problem += f"; which of these matter was not found out in {TRIES} tries"
        key = _pin(found, culprits, problem)
        wanted = {name: value for name, value in differing(base, sample).items() if name != key}
        sample = _like(sample, changed(base, wanted))


def _untraced_problem(found: Explored, sample: Sample, *, refine: bool = False) -> str | None:
    """As `_problem`, for a configuration that is not traced yet; None if Hugging Face's code does not run with it."""
    try:
        traced = found.lower_sample(sample)
    except UnsupportedModelError as error:
        return first_line(error)
    except Exception:  # any: Hugging Face's code was given values that it may not be made for
        return None
    return _problem(found, [traced], refine=refine)


def _problem(found: Explored, traced: Sequence[Lowered], *, refine: bool) -> str | None:
    """Why the classes do not follow configurations; they are refined, if they may be, where that suffices."""
    try:
        samples, classes = _written(found, [*found.samples, *traced])
    except (NotMergeable, NotExpressible, UnsupportedModelError) as error:
        return first_line(error)
    if same_classes(classes, found.classes):
        return None
    if not refine:
        return "the classes are not the same"
    if (worse := found.worse(classes, LITTLE)) is not None:
        return worse
    found.samples, found.classes = samples, classes
    return None


def _written(found: Explored, samples: list[Lowered]) -> tuple[list[Lowered], list[ClassText]]:
    """The classes over some samples, and those with more, so that no key decides that changes nothing alone.

    Where many keys differ, any of them tells what is computed from what was.
    """
    base, known = found.small.traced[0], _read(found.classes)
    while True:
        classes = found.write_classes(samples)
        mistaken = [key for key in sorted(_read(classes) - known) if key in found.ledger.ignored.keys() & found.options]
        if not mistaken:
            return samples, classes
        known |= {*mistaken}
        alone = (base.with_values({key: found.options[key][0]}) for key in mistaken)
        samples = [*samples, *map(found.lower_sample, alone)]


def _read(classes: Sequence[ClassText]) -> set[str]:
    return set[str]().union(*(text.fields for text in classes))


def _pin(found: Explored, culprits: dict[str, Any], problem: str) -> str:
    """Build in one of the keys that the port does not follow together; returns which."""
    key = max(culprits, key=lambda key: (_is_switch(culprits[key]), key in found.ledger.ignored))
    together = ", ".join(f"{name}={value!r}" for name, value in culprits.items())
    why = f"with {together}: {problem}"
    if isinstance(culprits[key], dict):
        _pin_entries(found, key, culprits[key], why)
        return key
    del found.options[key]
    found.ledger.notes[key] = why
    if not found.small.vary(key):
        found.pinned.add(key)
        found.ledger.ignored.pop(key, None)
        found.ledger.accepted.pop(key, None)
        found.ledger.fixed[key] = found.values.get(key)
    sized = [sample.values.get(key) for sample in found.small.traced]
    _keep(found, [sample for sample in found.samples if sample.trace.sample.values.get(key) in sized])
    return key


def _pin_entries(found: Explored, key: str, value: dict[str, Any], why: str) -> None:
    """Build in what a dict holds otherwise than those of all sizes."""
    changed_ones = _changed_entries(found, key, value)
    pinned = changed_ones & {TYPE} or changed_ones  # what else differs comes with the type
    for name in sorted(pinned):
        found.ledger.notes[f"{key}.{name}"] = why
        present = [each.get(name) for each in parameter_sets(found.values[key])]
        found.ledger.accepted[f"{key}.{name}"] = list(dict.fromkeys(present))
    found.options[key] = [other for other in found.options[key] if not pinned & _changed_entries(found, key, other)]
    if not found.options[key]:
        del found.options[key]
    values = [(sample, sample.trace.sample.values.get(key)) for sample in found.samples]
    _keep(found, [sample for sample, own in values if not pinned & _changed_entries(found, key, own)])


def _keep(found: Explored, samples: list[Lowered]) -> None:
    found.samples, found.classes = samples, found.write_classes(samples)


def _changed_entries(found: Explored, key: str, value: Any) -> set[str]:
    """The entries of a dict that differ from those of all sizes."""
    own = [each for sample in found.small.traced for each in parameter_sets(sample.values.get(key))]
    return {
        name
        for each in parameter_sets(value)
        for name, item in each.items()
        if all(one.get(name) != item for one in own)
    }


def _culprits(found: Explored, base: Sample, other: Sample, tries: Tries) -> tuple[dict[str, Any], Sample | None]:
    """The fewest options that make the difference between what is followed and what is not.

    Returns:
        Them, and the configuration where they differ; both are empty where sizes play a part that cannot be told, as
        Hugging Face's code does not run with those alone: mixed at will they need not divide evenly. Where the tries
        are used up, the fewest that were found until then, and no configuration.
    """
    wanted = differing(base, other)
    options = [key for key in wanted if _is_option(found, key, wanted[key])]
    sizes = [key for key in wanted if key not in options]

    def sample_of(keys: Sequence[str]) -> Sample | None:
        return _like(other, changed(base, {key: wanted[key] for key in keys}))

    failed = [options]

    def fails(keys: Sequence[str]) -> bool:
        """Whether the port does not follow these keys; nothing is known where HF's code does not run with them."""
        sample = sample_of(keys)
        if sample is None:
            return False
        tries.take()
        if _untraced_problem(found, sample) is None:
            return False
        failed.append([key for key in keys if key in options])
        return True

    try:
        if fails(options):
            found_keys, given = fewest([], options, fails), list[str]()
        elif sample_of(sizes) is None:
            return {}, None
        elif fails(sizes):
            return {}, sample_of(sizes)
        else:
            found_keys, given = fewest(sizes, options, fails), sizes
    except NoTriesLeft:
        return {key: wanted[key] for key in min(failed, key=len)}, None
    return {key: wanted[key] for key in found_keys}, sample_of([*given, *found_keys])


def fewest(given: Sequence[str], keys: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """The fewest of some keys that fail together; where that cannot be told, not quite the fewest.

    Halves that do not matter are left out as a whole: Junker, "QuickXplain: Preferred Explanations and Relaxations for
    Over-Constrained Problems" (2004).

    Args:
        given: keys that are there in any case, and do not fail alone.
        keys: some that fail with those.
    """

    def needed(base: list[str], keys: list[str], *, more: bool) -> list[str]:
        """Those of `keys` that fail with `base`; `more`: it has become more, and may fail alone."""
        if more and fails(base):
            return []
        if len(keys) == 1:
            return keys
        half = len(keys) // 2
        later = needed([*base, *keys[:half]], keys[half:], more=True)
        return [*needed([*base, *later], keys[:half], more=bool(later)), *later]

    return needed([*given], [*keys], more=False)


def _is_option(found: Explored, key: str, value: Any) -> bool:
    """Whether a key holds what none of the sizes has."""
    if isinstance(value, dict):
        return key in found.options and bool(_changed_entries(found, key, value))
    return value in found.options.get(key, [])


def _is_switch(value: Any) -> bool:
    """Whether a value says how something is computed, not how large it is."""
    return value is None or isinstance(value, bool | str)


def _like(sample: Sample, other: Sample | None) -> Sample | None:
    """Another configuration, traced with as many tokens as one."""
    return other and replace(other, batch=sample.batch, length=sample.length, past=sample.past)
