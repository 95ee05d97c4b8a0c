"""The engine directory: what is in it, and the check that it is complete and unaltered.

    config.json             {"version", "pretrained_config", "build_config", "digests"}; written last
    rank{r}.engine          the compiled engine; absent where only the reference executor was asked for
    rank{r}.network.json    the network definition, which the reference executor walks
    rank{r}.constants.safetensors   constants of the network that are no parameters, where there are any
    rank{r}.safetensors     the parameters
    build_report.json       what the build cost, and whether attention got fused kernels

`version`, `pretrained_config` and `build_config` are the names that TensorRT-LLM's engine directories had.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trtllm_port.errors import EngineError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import read_json, reading, typed

__all__ = ["CONFIG", "BuildConfig", "EngineDirectory", "constants_name", "engine_name", "network_name", "weights_name"]

CONFIG = "config.json"
FORMAT_VERSION = 1
REBUILD = "build it again with `trtllm-port build`"


def engine_name(rank: int) -> str:
    return f"rank{rank}.engine"


def network_name(rank: int) -> str:
    return f"rank{rank}.network.json"


def constants_name(rank: int) -> str:
    return f"rank{rank}.constants.safetensors"


def weights_name(rank: int) -> str:
    return f"rank{rank}.safetensors"


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What an engine was built for.

    Args:
        backend: "tensorrt", "tensorrt_rtx", or "reference" where no engine was compiled.
        library_version: of the library that compiled the engine, or that defined the network.
        compute_capabilities: the GPUs that the engine was compiled for.
        max_batch_size: prompts at once.
        max_input_len: tokens of a prompt.
        max_seq_len: tokens of a prompt and its continuation; the length of the KV cache.
        world_size: the number of ranks, one engine each.
    """

    backend: str
    library_version: str
    compute_capabilities: tuple[str, ...] = ()
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    world_size: int = 1

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_input_len", "max_seq_len", "world_size"):
            if getattr(self, name) < 1:
                raise EngineError(f"`{name}` is {getattr(self, name)}, expected at least 1")
        if self.max_input_len > self.max_seq_len:
            raise EngineError(
                f"`max_input_len` {self.max_input_len} is more than `max_seq_len` {self.max_seq_len}",
                hint="the KV cache holds the prompt and its continuation: give a larger `--max-seq-len`",
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"compute_capabilities": list(self.compute_capabilities)}


@dataclass(frozen=True, kw_only=True)
class _Content:
    """Of `config.json`, the version apart."""

    pretrained_config: dict[str, Any]
    build_config: BuildConfig
    digests: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class EngineDirectory:
    """An engine directory whose `config.json` was read.

    Args:
        path: the directory.
        build: what the engine was built for.
        pretrained_config: the checkpoint's configuration.
        digests: file name to digest, of all other files.
    """

    path: Path
    build: BuildConfig
    pretrained_config: dict[str, Any]
    digests: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return {
            "version": FORMAT_VERSION,
            "pretrained_config": self.pretrained_config,
            "build_config": self.build.to_dict(),
            "digests": self.digests,
        }

    @classmethod
    def read(cls, path: Path) -> EngineDirectory:
        """Read `config.json` and check that every file it names is there.

        Raises:
            EngineError: not an engine directory, of another version, or incomplete.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise EngineError(f"`{path}` is not a complete engine directory: it has no `{CONFIG}`", hint=REBUILD)
        values = _read_config(path / CONFIG)
        with reading(path / CONFIG, EngineError, hint=REBUILD, failed="is not the configuration of an engine"):
            content = typed(_Content, {name: value for name, value in values.items() if name != "version"})
            directory = cls(
                path=path,
                build=content.build_config,
                pretrained_config=content.pretrained_config,
                digests=content.digests,
            )
        directory._require_files()
        return directory

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a directory was written by a build, complete or not, of this version."""
        try:
            return "build_config" in _read_config(path / CONFIG)
        except (EngineError, OSError):
            return False

    def network_files(self, rank: int) -> list[str]:
        """The names of the network definition and of its constants, where it has some too large for the text."""
        has_constants = (self.path / constants_name(rank)).exists()
        return [network_name(rank), *([constants_name(rank)] if has_constants else [])]

    def verify(self, names: Collection[str]) -> None:
        """Check the content of some files against their digests, before they are read.

        Raises:
            EngineError: a file differs from what the build wrote, or was not written by it.
        """
        for name in names:
            if name not in self.digests:
                raise EngineError(f"`{self.path}` was built without `{name}`", hint=REBUILD)
            if (found := file_digest(self.path / name)) != self.digests[name]:
                raise EngineError(
                    f"`{self.path / name}` is not the file that the build wrote: its digest is {found}, "
                    f"`{CONFIG}` has {self.digests[name]}",
                    hint=REBUILD,
                )

    def _require_files(self) -> None:
        missing = sorted(name for name in self.digests if not (self.path / name).is_file())
        if missing:
            raise EngineError(f"`{self.path}` is incomplete: {', '.join(missing)} missing", hint=REBUILD)


def _read_config(path: Path) -> dict[str, Any]:
    values = read_json(path, EngineError, hint=REBUILD)
    if "build_config" not in values:
        raise EngineError(
            f"`{path}` is not the configuration of an engine: it has no `build_config`",
            hint="give the directory that `trtllm-port build` wrote, not the checkpoint or the model",
        )
    if values.get("version") != FORMAT_VERSION:
        raise EngineError(
            f"`{path}` has format version {values.get('version')!r}, this release reads {FORMAT_VERSION}",
            hint=REBUILD,
        )
    return values
