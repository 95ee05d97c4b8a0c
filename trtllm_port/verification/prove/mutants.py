"""The port under test: sound, or with a bug, as something that runs. Nothing is written but a copy of its package."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from trtllm_port.errors import CheckpointError, NetworkError, PortError
from trtllm_port.foundation.foreign import read_json
from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.definition.quantized import WeightFormat, parts_of
from trtllm_port.layers.quantization import CannotKeepError, CheckpointWeights, read_formats, tensors_of
from trtllm_port.layers.weights import HuggingFaceWeights, MappingWeights, SafetensorsFile
from trtllm_port.registry.ports import find_port
from trtllm_port.registry.workspace import MARKER, MARKER_TEXT
from trtllm_port.verification.prove.bugs import Injection, Requantize
from trtllm_port.verification.sides.preparation import Model, convert
from trtllm_port.verification.sides.session_runner import SessionRunner

Formats = Mapping[str, WeightFormat]
Stored = tuple[dict[str, Tensor], Formats]
"""A checkpoint's tensors, and how some of its parameters are quantized."""
PRIVATE = "_trtllm_port_"  # the registry's prefix of imported workspaces


@dataclass(frozen=True, kw_only=True)
class MutantFactory:
    """Where bugged ports are made.

    Attributes:
        model: the model and its sound port.
        work: an empty directory.
        length: tokens that the KV cache must hold.
        rows: prompts at once.
    """

    model: Model
    work: Path = field(repr=False)
    length: int
    rows: int

    @contextmanager
    def port(self, dtype: str, injection: Injection | None = None) -> Iterator[SessionRunner]:
        """Give the port in a dtype, with a bug if there is one.

        Raises:
            PortError: the bugged port cannot hold the weights, or TensorRT refuses its network.
        """
        before = set(sys.modules)
        try:
            yield self._runner(dtype, injection)
        finally:
            for name in [name for name in set(sys.modules) - before if name.startswith(PRIVATE)]:
                del sys.modules[name]

    def package(self, injection: Injection | None) -> Path:
        """Write a workspace that holds this port alone, with the bug in its source."""
        model = self.model
        workspace = self.work / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        package = workspace / "models" / model.port.name
        for each in model.port.packages:
            shutil.copytree(each, package.parent / each.name, ignore=shutil.ignore_patterns("__pycache__"))
        name = model.port.cls.__name__
        registry = f"from .{model.port.name}.model import {name}\n\nMODEL_MAP = {{{model.architecture!r}: {name}}}\n"
        (package.parent / "__init__.py").write_text(registry, encoding="utf-8")
        (package.parent / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
        if injection is not None and injection.source is not None:
            (package / "model.py").write_text(injection.source, encoding="utf-8")
        return workspace

    def stored(self, dtype: str) -> CheckpointWeights | None:
        """Return the parameters as the conversion for a dtype keeps them; None: it quantizes none."""
        kept = self._kept(dtype)
        return None if kept is None else CheckpointWeights(MappingWeights(kept[0]), kept[1], dtype)

    def _runner(self, dtype: str, injection: Injection | None) -> SessionRunner:
        from trtllm_port.runtime.session import Session

        port_class: Any = find_port(self.package(injection), self.model.architecture).cls
        port = port_class(port_class.config_class.from_hugging_face(self.model.source, dtype))
        kept = self._kept(dtype)
        if kept is None:
            port.load_hugging_face(HuggingFaceWeights(self.model.source))
        else:
            port.load(*kept)
        if injection is not None and injection.weights:
            dtypes = {name: tensor.dtype for name, tensor in port.weights.items()}
            changed = {name: value.to(dtypes[name]) for name, value in injection.weights.items()}
            port.load({**port.weights, **changed}, port.formats)
        if injection is not None and injection.quantized is not None:
            port.load(*_requantized(injection.quantized, port.weights, port.formats, dtype))
        try:
            network = port.define(max_seq_len=self.length)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise NetworkError(f"{type(error).__name__}: {error}") from error
        weights = CheckpointWeights(MappingWeights(port.weights), port.formats, dtype)
        return SessionRunner(Session.from_network(network, max_batch_size=self.rows), weights)

    def _kept(self, dtype: str) -> Stored | None:
        """What the sound port's conversion of a quantized model gives; no bug changes how weights are converted."""
        if self.model.quantized is None and self.model.quantize is None:
            return None
        checkpoint = self.work / f"kept-{dtype}"
        if not checkpoint.is_dir():
            convert(self.model, dtype, checkpoint)
        formats = read_formats(read_json(checkpoint / "config.json", CheckpointError))
        return SafetensorsFile(checkpoint / "rank0.safetensors").tensors(), formats


def _requantized(change: Requantize, weights: Mapping[str, Tensor], formats: Formats, dtype: str) -> Stored:
    """A checkpoint some of whose parameters have other codes and scales."""
    stored, found = dict(weights), dict(formats)
    changed = change(CheckpointWeights(MappingWeights(weights), formats, dtype))
    for name, grid in changed.items():
        for part in parts_of(name, weights).values() if name in formats else ():
            del stored[part]
        try:
            found[name], tensors = tensors_of(name, grid, torch_dtype(dtype))
        except CannotKeepError as error:
            raise PortError(f"`{name}` cannot be kept so: {error}") from error
        stored |= tensors
    return stored, found
