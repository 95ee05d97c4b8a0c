"""Which tensor fills which parameter, decided and checked in both directions before anything is read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.dtypes import FLOAT_DTYPES, torch_dtype
from trtllm_port.layers.weights.source import TensorSource
from trtllm_port.layers.weights.steps import Step, laid_end_to_end, run_steps
from trtllm_port.layers.weights.weight_map import Drop, Rule, Transform, WeightMap, fill, natural_key, rules

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
        base_model_prefix: put before names that are unknown without it.

    Raises:
        CheckpointError: missing, unexpected and duplicate tensors, wrong shapes and data types; all in one.
    """
    accounting = _Accounting(specs, source, config, base_model_prefix)
    map_rules = rules(weight_map)
    for name in source.names():
        accounting.place(name, map_rules)
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
    entries: list[WeightEntry] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = field(default_factory=dict)
    transforms: dict[tuple[str, ...], Transform] = field(default_factory=dict)
    aliased: list[WeightEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first_name = {alias: name for name, spec in self.specs.items() for alias in spec.aliases}

    def place(self, name: str, map_rules: list[Rule]) -> None:
        """Find the use of one tensor."""
        for rule in map_rules:
            parts = rule.match(name)
            if parts is None or (rule.drops_rest and self.parameter(name) is not None):
                continue
            if isinstance(rule.action, Transform):
                targets = tuple(fill(target, parts) for target in rule.action.targets)
                self.groups.setdefault(targets, []).append((rule.position, name))
                self.transforms[targets] = rule.action
            elif isinstance(rule.action, str):
                self.place_direct(name, fill(rule.action, parts))
            else:
                reason = rule.action.reason if isinstance(rule.action, Drop) else "listed in the weight map"
                self.dropped[name] = reason
            return
        self.place_direct(name, name)

    def parameter(self, target: str) -> str | None:
        """The parameter of a name, perhaps without the prefix; None if there is none."""
        candidates = (target, f"{self.prefix}.{target}")
        return next((one for one in candidates if one in self.specs or one in self.first_name), None)

    def place_direct(self, name: str, target: str) -> None:
        found = self.parameter(target)
        if found is None:
            self.unexpected.append(name)
        else:
            kind = self.entries if found in self.specs else self.aliased
            kind.append(WeightEntry((name,), (found,)))

    def close_groups(self) -> None:
        """One entry for all the tensors that go into the same targets."""
        for targets, members in self.groups.items():
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
