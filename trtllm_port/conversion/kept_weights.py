"""Which parameters of a checkpoint stay quantized, and in which tensors: decided before anything is written."""

from __future__ import annotations

import torch

from trtllm_port.conversion.safetensors_writer import TensorHeader
from trtllm_port.conversion.source import Source
from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.definition.quantized import WeightFormat, part_name
from trtllm_port.layers.quantization import CannotKeepError, kept, tensors_of
from trtllm_port.layers.weights import WeightEntry, WeightPlan
from trtllm_port.layers.weights.header import DTYPES

SAFETENSORS_DTYPES = {name: code for code, (name, _size) in DTYPES.items()}
PARTLY = "of the weights that make it up, some are not quantized"


class KeptWeights:
    """The steps of a conversion: those whose parameters stay quantized, and the others.

    Args:
        plan: the conversion.
        source: of which weights are kept if it says so.
        dtype: of the network.

    Attributes:
        formats: how the kept parameters are quantized, by name.
        left: quantized weights' parameters that are written as they were before → why.
        inputs: weight of the source → kind and scale of the codes to which what goes into it is rounded.
    """

    def __init__(self, plan: WeightPlan, source: Source, dtype: str) -> None:
        self.formats: dict[str, WeightFormat] = {}
        self.left: dict[str, str] = {}
        self.inputs: dict[str, tuple[str, float]] = {}
        self._plan = plan
        self._dtype = dtype
        self._headers: dict[tuple[str, ...], list[TensorHeader]] = {}  # by the targets of a step
        self._source = source
        if not source.keeps:
            return
        for entry in plan.entries:
            quantized = [source.is_quantized(name) for name in entry.sources]
            if not all(quantized):
                self.left |= dict.fromkeys(entry.targets, PARTLY) if any(quantized) else {}
                continue
            try:
                formats, tensors = self._tensors(entry, 0)
            except CannotKeepError as error:
                self.left |= dict.fromkeys(entry.targets, str(error))
                continue
            self.formats |= formats
            for target, found in formats.items():
                if found.activation is not None:
                    scale = float(tensors[part_name(target, "activation_scale")])
                    self.inputs |= dict.fromkeys(entry.sources, (found.activation, scale))
            self._headers[entry.targets] = [
                TensorHeader(name, SAFETENSORS_DTYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
                for name, tensor in tensors.items()
            ]

    def keeps(self, entry: WeightEntry) -> bool:
        """Whether a step makes parameters that stay quantized."""
        return entry.targets in self._headers

    def headers(self, entry: WeightEntry) -> list[TensorHeader]:
        """What a step makes in a rank's file (every rank's shapes are alike)."""
        if self.keeps(entry):
            return self._headers[entry.targets]
        headers = []
        for name in entry.targets:
            spec = self._plan.specs[name]
            shape = list(spec.shape)
            if spec.shard is not None:
                dim, parts = spec.shard
                shape[dim] //= parts
            headers.append(TensorHeader(name, SAFETENSORS_DTYPES[spec.dtype], tuple(shape)))
        return headers

    @property
    def all_headers(self) -> list[TensorHeader]:
        """All tensors in a rank's file."""
        return [header for entry in self._plan.entries for header in self.headers(entry)]

    @property
    def size(self) -> int:
        """Bytes of the tensors in a rank's file."""
        return sum(header.size for header in self.all_headers)

    def tensors(self, entry: WeightEntry, rank: int) -> dict[str, torch.Tensor]:
        """Those of one rank, by name."""
        return self._tensors(entry, rank)[1]

    def _tensors(self, entry: WeightEntry, rank: int) -> tuple[dict[str, WeightFormat], dict[str, torch.Tensor]]:
        weights = [weight for name in entry.sources if (weight := self._source.quantized(name)) is not None]
        formats: dict[str, WeightFormat] = {}
        tensors: dict[str, torch.Tensor] = {}
        for name, grid in kept(entry, weights, self._plan).items():
            spec = self._plan.specs[name]
            if spec.dtype != self._dtype:
                raise CannotKeepError(f"the port computes with it in {spec.dtype}")
            if spec.shard is not None:
                axis, parts = spec.shard
                size = spec.shape[axis] // parts
                grid = grid.narrowed(axis % len(spec.shape), rank * size, size)
            formats[name], made = tensors_of(name, grid, torch_dtype(self._dtype))
            tensors |= made
        return formats, tensors
