"""The port under test: sound, or with a bug, as something that runs. Nothing is written but a copy of its package."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import NetworkError
from trtllm_port.registry.ports import find_port
from trtllm_port.registry.workspace import MARKER, MARKER_TEXT
from trtllm_port.verification.prove.bugs import Injection
from trtllm_port.verification.sides.preparation import Model
from trtllm_port.verification.sides.session_runner import SessionRunner

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

    def _runner(self, dtype: str, injection: Injection | None) -> SessionRunner:
        from trtllm_port.layers.weights import HuggingFaceWeights, MappingWeights
        from trtllm_port.runtime.session import Session

        port_class: Any = find_port(self.package(injection), self.model.architecture).cls
        port = port_class(port_class.config_class.from_hugging_face(self.model.source, dtype))
        port.load_hugging_face(HuggingFaceWeights(self.model.source))
        if injection is not None and injection.weights:
            dtypes = {name: tensor.dtype for name, tensor in port.weights.items()}
            port.load({**port.weights, **{n: w.to(dtypes[n]) for n, w in injection.weights.items()}})
        try:
            network = port.define(max_seq_len=self.length)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise NetworkError(f"{type(error).__name__}: {error}") from error
        return SessionRunner(Session.from_network(network, max_batch_size=self.rows), MappingWeights(port.weights))
