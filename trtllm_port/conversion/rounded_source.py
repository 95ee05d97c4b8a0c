"""A plain model's weights, some of them quantized by rounding when they are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from trtllm_port.conversion.pipeline import Piece
from trtllm_port.conversion.source import StreamedWeights, whole
from trtllm_port.errors import ConfigError
from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.quantization import (
    LEFT_BY_DEFAULT,
    ROUNDED,
    CannotKeepError,
    Grid,
    QuantizedWeight,
    QuantizeOptions,
    Rounding,
    bytes_of_integers,
    kept,
)
from trtllm_port.layers.weights import WeightEntry, WeightPlan


@dataclass(frozen=True, kw_only=True)
class RoundedEntry:
    """Weights that are quantized together, or none of them.

    Attributes:
        modules: of the port, whose weights they become; `exclude_modules` takes these names.
        sources: the tensors of the plain model.
        bytes: of their codes and scales in the checkpoint.
        plain_bytes: of the weights if they were left as they are.
    """

    modules: tuple[str, ...]
    sources: tuple[str, ...]
    bytes: int
    plain_bytes: int


class RoundedWeights(StreamedWeights):
    """As `StreamedWeights`; the weights of matrix products are quantized.

    Attributes:
        entries: what is quantized.

    Args:
        hf_model_dir: of a plain model.
        options: what is quantized how; nothing is before `choose`.

    Raises:
        CheckpointError: as `HuggingFaceWeights`.
    """

    keeps = True

    def __init__(self, hf_model_dir: Path, options: QuantizeOptions) -> None:
        super().__init__(hf_model_dir)
        self._options = options
        self.entries: list[RoundedEntry] = []
        self._inputs: dict[str, int] = {}
        self._rounding = Rounding(options.algorithm, options.group_size, torch.float32)

    def choose(self, plan: WeightPlan, factors: Mapping[str, int | None], dtype: str) -> None:
        """Decide which weights are quantized.

        Args:
            plan: of the conversion.
            factors: parameters that are factors of products → the axis of what goes in; None: of other uses, too.
            dtype: of the checkpoint.

        Raises:
            ConfigError: a pattern fits no module; nothing is left to be quantized.
        """
        options = self._options
        scales = torch_dtype(options.scale_dtype or dtype)
        self._rounding = Rounding(options.algorithm, options.group_size, scales)
        _require_used(options.exclude_modules, factors)
        excluded: list[str] = []
        for entry in plan.entries:
            found = {name: factors[name] for name in entry.targets if name in factors}
            wanted = {name: axis for name, axis in found.items() if axis is not None and not _excluded(name, options)}
            in_dtype = all(plan.specs[name].dtype == dtype for name in entry.targets)
            grids = self._grids(entry, plan, wanted) if in_dtype and len(wanted) == len(entry.targets) else None
            if grids is None:
                excluded += [module_of(each) for name in found for each in (name, *plan.specs[name].aliases)]
                continue
            axis, made = grids
            self._inputs |= dict.fromkeys(entry.sources, axis)
            self.entries.append(_rounded_entry(entry, made, torch_dtype(dtype)))
        self.excluded = sorted(excluded)
        if not self._inputs:
            raise ConfigError(f"no weight of `{self.directory}` can be quantized by `{options.algorithm}`")

    def is_quantized(self, name: str) -> bool:
        """Whether a tensor is quantized."""
        return name in self._inputs

    def dtype(self, name: str) -> str:
        """Of a quantized tensor that of what its codes stand for."""
        return "float32" if name in self._inputs else super().dtype(name)

    def quantized(self, name: str) -> QuantizedWeight | None:
        """A weight's codes and scales; None for one that is left as it is."""
        if name not in self._inputs:
            return None
        input_range = self._options.ranges.get(module_of(name))
        return self._rounding.rounded(super().tensor(name), self._inputs[name], input_range)

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor: of a quantized one what its codes stand for, in float32."""
        weight = self.quantized(name)
        return super().tensor(name) if weight is None else weight.parameter()

    def pieces(self, name: str) -> Iterator[Piece]:
        """Yield the tensor's bytes: of a quantized one what its codes stand for, all at once."""
        return whole(self.tensor(name)) if name in self._inputs else super().pieces(name)

    def size(self, name: str) -> int:
        """Return the tensor's bytes."""
        return math.prod(self.shape(name)) * torch.float32.itemsize if name in self._inputs else super().size(name)

    def _grids(
        self, entry: WeightEntry, plan: WeightPlan, wanted: Mapping[str, int]
    ) -> tuple[int, Mapping[str, Grid]] | None:
        """The sources' axis of what goes in, and what becomes of them, if they can be quantized: found by trying.

        The values are not read; they are zeros.
        """
        if any(len(self.shape(name)) < 2 for name in entry.sources):
            return None
        for axis in (-1, -2):
            if any(self._rounding.group(self.shape(name)[axis]) is None for name in entry.sources):
                continue
            try:
                grids = kept(entry, [self._example(name, axis) for name in entry.sources], plan)
            except CannotKeepError:
                continue
            if all(grids[name].inputs == inputs for name, inputs in wanted.items()):
                return axis, grids
        return None

    def _example(self, name: str, axis: int) -> QuantizedWeight:
        """A weight of a tensor's shape; it takes one byte."""
        shape = list(self.shape(name))
        rows, features = shape[-3 - axis], shape[axis]
        group = self._rounding.group(features) or features
        lead = shape[:-2]
        scale = torch.ones(1).expand(*lead, rows, features // group)
        kind = ROUNDED[self._options.algorithm].kind
        dtype = torch.float8_e4m3fn if kind == "fp8_e4m3" else torch.int8
        codes = torch.zeros(1, dtype=dtype).expand(*lead, rows, features)
        return QuantizedWeight(kind=kind, codes=codes, block=(1, group), scale=scale, transposed=axis == -2)


def _rounded_entry(entry: WeightEntry, grids: Mapping[str, Grid], dtype: torch.dtype) -> RoundedEntry:
    return RoundedEntry(
        modules=tuple(dict.fromkeys(map(module_of, entry.targets))),
        sources=entry.sources,
        bytes=sum(bytes_of_integers(grid, dtype) for grid in grids.values()),
        plain_bytes=sum(grid.codes.numel() * dtype.itemsize for grid in grids.values()),
    )


def _require_used(patterns: tuple[str, ...], factors: Mapping[str, int | None]) -> None:
    """Refuse patterns that leave nothing out."""
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in factors):
            modules = sorted({module_of(name) for name in factors})
            raise ConfigError(
                f"no module that could be quantized fits `{pattern}`", hint=f"modules are {modules[0]} and so on"
            )


def _excluded(name: str, options: QuantizeOptions) -> bool:
    return any(_fits(name, pattern) for pattern in (*LEFT_BY_DEFAULT, *options.exclude_modules))


def _fits(name: str, pattern: str) -> bool:
    return any(fnmatchcase(each, pattern) for each in (name, module_of(name)))


def module_of(parameter: str) -> str:
    """The module that a parameter belongs to."""
    return parameter.rpartition(".")[0]
