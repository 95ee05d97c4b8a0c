"""From a defined network to text: network file, executors, engine build, session, generation.

In: a `Network` or an engine directory, and prompts. Out: logits and tokens, alike whatever computes them. A newcomer
adds a way to choose tokens in `sampling.py`, and a way to compute as an `Executor` that `backends.py` chooses.
The names below are loaded when they are first used: `doctor` must be able to look at a machine without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtllm_port.runtime.engines.builder import EngineBuild, compile_engine
    from trtllm_port.runtime.engines.directory import BuildConfig, EngineDirectory
    from trtllm_port.runtime.generation import Generation, generate
    from trtllm_port.runtime.network import NetworkFile
    from trtllm_port.runtime.network.executor import Executor, TensorSpec
    from trtllm_port.runtime.reference import ReferenceExecutor
    from trtllm_port.runtime.sampling import SamplingConfig
    from trtllm_port.runtime.session import Session

_HOMES = {
    "BuildConfig": "engines.directory",
    "EngineBuild": "engines.builder",
    "EngineDirectory": "engines.directory",
    "Executor": "network.executor",
    "Generation": "generation",
    "NetworkFile": "network",
    "ReferenceExecutor": "reference",
    "SamplingConfig": "sampling",
    "Session": "session",
    "TensorSpec": "network.executor",
    "compile_engine": "engines.builder",
    "generate": "generation",
}

__all__ = [
    "BuildConfig",
    "EngineBuild",
    "EngineDirectory",
    "Executor",
    "Generation",
    "NetworkFile",
    "ReferenceExecutor",
    "SamplingConfig",
    "Session",
    "TensorSpec",
    "compile_engine",
    "generate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
