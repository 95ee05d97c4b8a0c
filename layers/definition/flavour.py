"""The one module that chooses between `tensorrt` and `tensorrt_rtx`: their Python API is the same."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from trtllm_port.errors import EnvironmentLackError

#: How a compiler begins what it says in the end: of an engine's layers, and of its weights.
LAYERS, WEIGHTS = "Layers:", "Total Weights Memory:"
FLAVOURS = ("tensorrt_rtx", "tensorrt")


@cache
def load_flavour(name: str = "auto") -> ModuleType:
    """Import a TensorRT flavour.

    Args:
        name: "tensorrt", "tensorrt_rtx", or "auto": the first of `FLAVOURS` that is installed.

    Raises:
        EnvironmentLackError: the library is not installed, or cannot be loaded.
    """
    if name not in ("auto", *FLAVOURS):
        raise EnvironmentLackError(f"unknown TensorRT flavour `{name}`", hint=f"auto, {' or '.join(FLAVOURS)}")
    failures = []
    for candidate in FLAVOURS if name == "auto" else (name,):
        try:
            return importlib.import_module(candidate)
        except (ImportError, OSError, RuntimeError) as error:  # a missing shared library is any of the three
            failures.append(f"`{candidate}`: {error}")
    package = "tensorrt" if name == "tensorrt" else "tensorrt-rtx-cu13"
    raise EnvironmentLackError(f"TensorRT cannot be imported: {'; '.join(failures)}", hint=f"`pip install {package}`")


def get_logger(trt: ModuleType) -> Any:
    """The process's only logger for a flavour (TensorRT keeps the first it is given), an instance of `trt.ILogger`.

    It prints nothing: warnings and errors are collected in `.messages`, a list of (severity name, text);
    `.drain()` returns them and forgets them. What a compiler says in the end of an engine's layers and weights is in
    `.details`, texts that begin with `LAYERS` or `WEIGHTS`. Who asks for it begins something new, a network or a
    runtime: what was said about earlier ones is forgotten.
    """
    logger = _logger(trt)
    logger.drain()
    logger.details.clear()
    return logger


@cache
def _logger(trt: ModuleType) -> Any:

    class CollectingLogger(trt.ILogger):  # type: ignore[misc, name-defined]  # no stubs
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []
            self.details: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.messages.append((severity.name, text))
            elif text.startswith((LAYERS, WEIGHTS)):
                self.details.append(text)

        def drain(self) -> list[tuple[str, str]]:
            drained, self.messages = self.messages, []
            return drained

    return CollectingLogger()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from collecting garbage while TensorRT makes a builder or a runtime.

    The library logs while it holds a lock that destroying a builder takes, too. A collection that begins in the logger
    and finds an old builder would wait for itself for ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
