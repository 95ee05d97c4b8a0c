"""Which tensor fills which parameter, decided and checked in both directions before anything is read."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES, torch_dtype
from trtllm_port.layers.weights.source import TensorSource
from trtllm_port.layers.weights.steps import Step, laid_end_to_end, run_steps
from trtllm_port.layers.weights.weight_map import (
    LISTED,
    Drop,
    Rule,
    Transform,
    WeightMap,
    fill,
    natural_key,
    rules,
    searches,
)

CASTABLE = (*FLOAT_DTYPES, "float64")
SUGGESTIONS = 20  # names for which the nearest is looked up: each look-up compares with all others


@dataclass(frozen=True)
class ParameterSpec:
    """A port's parameter as a checkpoint holds it.

    Attributes:
        shape: before it is cut for the ranks.
        dtype: the port's.
        shard: (dimension, parts) of the cut, or None.
        aliases: further names of the same parameter: tied weights.
    """

    shape: tuple[int, ...]
    dtype: str
    shard: tuple[int, int] | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightEntry:
    """One step of a conversion: the tensors read, the parameters made, and what is between (None: as it is).

    Attributes:
        counts: how many of the sources each source pattern matched.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    function: Callable[..., Any] | Sequence[Step] | None = None
    counts: tuple[int, ...] = (1,)

    @property
    def end_to_end(self) -> tuple[str, ...] | None:
        """The sources in the order in which their bytes are those of the one target; None: not as they are."""
        if self.function is None:
            return self.sources
        order = None if callable(self.function) else laid_end_to_end(self.function, self.counts)
        return None if order is None or len(self.targets) > 1 else tuple(self.sources[index] for index in order)


@dataclass(frozen=True)
class WeightPlan:
    """Every tensor is used once or dropped with a reason; every parameter is filled.

    Attributes:
        entries: the steps, in the order of the source.
        dropped: HF tensor → reason.
        specs: parameter → what it must be.
        config: the port's config, for the transforms.
    """

    entries: tuple[WeightEntry, ...]
    dropped: Mapping[str, str]
    specs: Mapping[str, ParameterSpec]
    config: Any

    def load(self, entry: WeightEntry, source: TensorSource, rank: int = 0) -> dict[str, torch.Tensor]:
        """One step's parameters in the port's data type: `rank`'s part of them, contiguous.

        A tensor that needs no change is not copied.

        Raises:
            CheckpointError: a transform gives another shape for these values than it gave without values.
        """
        tensors = _outputs(self.config, entry, [source.tensor(name) for name in entry.sources])
        loaded = {}
        for name, tensor in zip(entry.targets, tensors, strict=True):
            spec = self.specs[name]
            if tuple(tensor.shape) != spec.shape:
                shapes = f"{tuple(tensor.shape)} for `{name}`, expected {spec.shape}"
                raise CheckpointError(f"transform of `{entry.sources[0]}` gave shape {shapes}")
            if spec.shard is not None:
                dim, parts = spec.shard
                size = tensor.shape[dim] // parts
                tensor = tensor.narrow(dim, rank * size, size)
            loaded[name] = tensor.to(torch_dtype(spec.dtype)).contiguous()
        return loaded


def _outputs(config: Any, entry: WeightEntry, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if entry.function is None:
        return tuple(tensors)
    if not callable(entry.function):
        rest = iter(tensors)
        return run_steps(entry.function, [[next(rest) for _ in range(count)] for count in entry.counts])
    made = entry.function(config, *tensors)
    return (made,) if isinstance(made, torch.Tensor) else tuple(made)


def plan_weights(
    specs: Mapping[str, ParameterSpec],
    source: TensorSource,
    weight_map: WeightMap,
    *,
    config: Any = None,
    base_model_prefix: str = "",
) -> WeightPlan:
    """Decide what fills each parameter, by equal name and by the weight map.

    Args:
        specs: the port's parameters.
        source: HF's tensors.
        weight_map: the exceptions.
        config: the port's config, given to transforms.
        base_model_prefix: put before names that are unknown without it, or taken away: as transformers does.

    Raises:
        CheckpointError: missing, unexpected and duplicate tensors, wrong shapes and data types; all in one.
    """
    accounting = _Accounting(specs, source, config, base_model_prefix, rules(weight_map), searches(weight_map))
    for name in source.names():
        accounting.place(name)
    accounting.close_groups()
    accounting.settle_ties()
    accounting.check()
    return WeightPlan(tuple(accounting.entries), accounting.dropped, specs, config)


@dataclass
class _Accounting:
    specs: Mapping[str, ParameterSpec]
    source: TensorSource
    config: Any
    prefix: str
    rules: list[Rule]
    searches: Mapping[str, str]
    entries: list[WeightEntry] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = field(default_factory=dict)
    transforms: dict[tuple[str, ...], Transform] = field(default_factory=dict)
    aliased: list[WeightEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first_name = {alias: name for name, spec in self.specs.items() for alias in spec.aliases}

    def place(self, name: str) -> None:
        """Find the use of one tensor."""
        for rule in self.rules:
            parts = rule.match(name)
            if parts is not None and not (rule.drops_rest and self.parameter(name) is not None):
                return self.apply(rule, parts, name)
        if self.parameter(name) is None:
            for spelling in self.spellings(name):
                for rule in self.rules:
                    parts = rule.match(spelling)
                    if parts is not None and self.leads_somewhere(rule, parts):
                        return self.apply(rule, parts, name)
        self.place_direct(name, name)

    def apply(self, rule: Rule, parts: tuple[str, ...], name: str) -> None:
        """Do with a tensor what a rule says, whose `*` stand for `parts`."""
        if isinstance(rule.action, Transform):
            targets = tuple(fill(target, parts) for target in rule.action.targets)
            self.groups.setdefault(targets, []).append((rule.position, name))
            self.transforms[targets] = rule.action
        elif isinstance(rule.action, str):
            self.place_direct(name, fill(rule.action, parts))
        else:
            self.dropped[name] = rule.action.reason if isinstance(rule.action, Drop) else LISTED

    def leads_somewhere(self, rule: Rule, parts: tuple[str, ...]) -> bool:
        """Whether a rule drops, or what it makes is a parameter."""
        if isinstance(rule.action, Transform):
            return all(fill(target, parts) in self.specs for target in rule.action.targets)
        return not isinstance(rule.action, str) or self.parameter(fill(rule.action, parts)) is not None

    def spellings(self, name: str) -> tuple[str, ...]:
        """A name without the prefix and with it: transformers tries them in this order, before the name itself."""
        if not self.prefix:
            return ()
        short = (name.removeprefix(f"{self.prefix}."),) if name.startswith(f"{self.prefix}.") else ()
        return (*short, f"{self.prefix}.{name}")

    def parameter(self, target: str) -> str | None:
        """The parameter of a name, perhaps without the prefix or with it; None if there is none."""
        candidates = (*self.spellings(target), target)
        return next((one for one in candidates if one in self.specs or one in self.first_name), None)

    def place_direct(self, name: str, target: str) -> None:
        found = self.parameter(target)
        if found is not None:
            kind = self.entries if found in self.specs else self.aliased
            kind.append(WeightEntry((name,), (found,)))
        elif reason := self.ignored(name, target):
            self.dropped[name] = reason
        else:
            self.unexpected.append(name)

    def ignored(self, *names: str) -> str | None:
        """Why a tensor that has no use may be left out, whichever of its names says so; None: it may not."""
        found = (reason for text, reason in self.searches.items() if any(re.search(text, name) for name in names))
        return next(found, None)

    def close_groups(self) -> None:
        """One entry for all the tensors that go into the same targets."""
        for targets, members in self.groups.items():
            reasons = [self.ignored(target) for target in targets if target not in self.specs]
            if len(reasons) == len(targets) and all(reasons):
                self.dropped |= {name: str(reasons[0]) for _, name in members}
                continue
            names = tuple(name for _, name in sorted(members, key=lambda m: (m[0], natural_key(m[1]))))
            counts = tuple(count for _, count in sorted(Counter(position for position, _ in members).items()))
            self.entries.append(WeightEntry(names, targets, self.transforms[targets].function, counts))

    def settle_ties(self) -> None:
        """A tied parameter that the file has under several names: use one, drop its equals, refuse a different one."""
        filled = {target: entry for entry in self.entries for target in entry.targets}
        for entry in self.aliased:
            first = self.first_name[entry.targets[0]]
            name = entry.sources[0]
            if first not in filled:
                filled[first] = WeightEntry(entry.sources, (first,))
                self.entries.append(filled[first])
            elif self._is_equal(name, filled[first], first):
                self.dropped[name] = f"equal to `{filled[first].sources[0]}`, to which the config ties it"
            else:
                self.problems.append(
                    f"`{name}` differs from `{filled[first].sources[0]}`, though the config ties them: "
                    "set `tie_word_embeddings` to false in `config.json`"
                )

    def _is_equal(self, name: str, entry: WeightEntry, target: str) -> bool:
        """Whether a tensor has the value that `entry` gives to `target`."""
        made = _outputs(self.config, entry, [self.source.tensor(source) for source in entry.sources])
        value, other = made[entry.targets.index(target)], self.source.tensor(name)
        return value.dtype == other.dtype and torch.equal(value, other)

    def check(self) -> None:
        """Raise everything that is wrong at once."""
        seen: dict[str, tuple[str, ...]] = {}
        for entry in self.entries:
            for target in entry.targets:
                if target in seen:
                    self.problems.append(f"duplicate `{target}`: from `{seen[target][0]}` and `{entry.sources[0]}`")
                elif target not in self.specs:
                    self.problems.append(f"unknown parameter `{target}`, the target of `{entry.sources[0]}`")
                seen[target] = entry.sources
            self._check_entry(entry)
        missing = [name for name in self.specs if name not in seen]
        self.problems += [
            f"{what} `{name}`{_nearest(name, others) if i < SUGGESTIONS else ''}"
            for what, names, others in (("missing", missing, self.unexpected), ("unexpected", self.unexpected, missing))
            for i, name in enumerate(names)
        ]
        if self.problems:
            raise CheckpointError(
                "the weights do not fit the port:\n  " + "\n  ".join(sorted(self.problems, key=natural_key)),
                hint="the port's `weight_map` renames, transforms and drops tensors by name or pattern",
            )

    def _check_entry(self, entry: WeightEntry) -> None:
        known = [target for target in entry.targets if target in self.specs]
        shapes = [self.source.shape(name) for name in entry.sources]
        if entry.function is not None:
            meta = [torch.empty(shape, device="meta") for shape in shapes]
            try:
                shapes = [tuple(tensor.shape) for tensor in _outputs(self.config, entry, meta)]
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                self.problems.append(f"transform of `{entry.sources[0]}` failed: {str(error).splitlines()[0]}")
                return
            if len(shapes) != len(entry.targets):
                self.problems.append(
                    f"transform of `{entry.sources[0]}` gave {len(shapes)} of {len(entry.targets)} tensors"
                )
                return
        for target, shape in zip(entry.targets, shapes, strict=True):
            if target in known and shape != self.specs[target].shape:
                self.problems.append(f"shape of `{target}` is {shape}, expected {self.specs[target].shape}")
        for name in entry.sources:
            if self.source.dtype(name) not in CASTABLE and known and self.specs[known[0]].dtype in FLOAT_DTYPES:
                self.problems.append(
                    f"data type of `{name}` is {self.source.dtype(name)}, expected {' or '.join(CASTABLE)}"
                )


def _nearest(name: str, others: list[str]) -> str:
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
    return f" (nearest: `{close[0]}`)" if close else ""
