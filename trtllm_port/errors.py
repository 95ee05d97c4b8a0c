"""Every error this package raises on purpose. Caught in one place only: the command line.

    PortError                      exit code 2: what the user gave cannot be used
    ├── ConfigError                config.json is missing, malformed, or asks for what the port does not do
    ├── UnsupportedModelError      not a decoder-only causal language model, or one that cannot be ported
    ├── CheckpointError            weights are missing, extra, truncated, misshapen, non-finite or pickled
    ├── WorkspaceError             a port's name or place is not usable, or a port exists already
    ├── PortCodeError              exit code 1: the port's own code is unfinished, or raises what no port should
    ├── RegistryError              no registered port fits, or the port does not belong to the checkpoint
    ├── NetworkError               a port's `forward` asks for what TensorRT refuses: shapes, data types, layers
    ├── EngineError                an engine directory is incomplete, altered, or too small for the request
    ├── BundleError                a saved verification is damaged, foreign, or of another version
    ├── DiskSpaceError             the disk is full where something was to be written
    └── EnvironmentLackError       exit code 3: a library or a GPU is missing

A difference between a port and Hugging Face is a result, not an error: exit code 1 comes from a verdict.
"""

from __future__ import annotations

from typing import ClassVar


class PortError(Exception):
    """What failed, the value met, what was expected; and a hint at what to do next.

    Args:
        message: one sentence without a full stop; several sentences with.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ConfigError(PortError):
    """`config.json` is missing, malformed, or asks for something that the port does not do."""


class UnsupportedModelError(PortError):
    """The model is not a decoder-only causal language model, or cannot be ported."""


class CheckpointError(PortError):
    """Weights are missing, extra, truncated, misshapen, non-finite or pickled."""


class WorkspaceError(PortError):
    """A port's name or place is not usable, or a port exists already."""


class PortCodeError(PortError):
    """The port's own code is unfinished, or raises what no port should: the port is wrong."""

    exit_code: ClassVar[int] = 1


class RegistryError(PortError):
    """No registered port fits, or the port does not belong to the checkpoint."""


class NetworkError(PortError):
    """A port's `forward` asks for what TensorRT refuses: shapes or data types that do not fit, a layer it lacks."""


class EngineError(PortError):
    """An engine directory is incomplete, altered, or too small for the request."""


class BundleError(PortError):
    """A saved verification is damaged, foreign, or of another version."""


class DiskSpaceError(PortError):
    """The disk is full where something was to be written."""


class EnvironmentLackError(PortError):
    """The environment lacks a library or a GPU."""

    exit_code: ClassVar[int] = 3
