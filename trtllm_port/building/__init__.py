"""The stage `build`: a checkpoint and its port become an engine directory.

Requires a directory that `convert` wrote, and the port that it was written with in the workspace. Ensures that
`output_dir` is a complete engine directory (see `runtime/engines/directory.py`), or is as it was before. A newcomer
adds a check of the checkpoint in `checkpoint.py`; how TensorRT compiles is in `runtime/engines/`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from trtllm_port.building.checkpoint import Checkpoint
from trtllm_port.errors import EngineError, PortError, RegistryError
from trtllm_port.foundation.atomic_files import require_space, write_json
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.publishing import Kind, check_output, output_directory
from trtllm_port.layers.definition.flavour import load_flavour
from trtllm_port.layers.definition.quantized import CODES
from trtllm_port.layers.quantization import read_formats
from trtllm_port.registry.port_code import port_code
from trtllm_port.registry.ports import PortEntry, find_port
from trtllm_port.runtime.engines.builder import EngineBuild, compile_engine, target_capabilities
from trtllm_port.runtime.engines.devices import require_backend, this_machine, what_gpu_lacks
from trtllm_port.runtime.engines.directory import (
    CONFIG,
    BuildConfig,
    EngineDirectory,
    engine_name,
    network_name,
    weights_name,
)
from trtllm_port.runtime.engines.quantized_layers import without_type
from trtllm_port.runtime.network import NetworkFile

__all__ = ["BuildResult", "Limits", "build_engine"]

DEFAULT_SEQ_LEN = 2048
DEFAULT_INPUT_LEN = 1024
DEFAULT_BATCH_SIZE = 4
ENGINE = Kind(
    is_not="no engine directory",
    marker=CONFIG,
    names=(CONFIG, "build_report.json", "rank*.engine", "rank*.network.json", "rank*.safetensors"),
    is_one=EngineDirectory.is_one,
)


class Limits(TypedDict, total=False):
    """Sizes of an engine, all optional.

    max_batch_size: prompts at once; 4 by default.
    max_input_len: tokens of a prompt; by default 1024, or `max_seq_len` where that is less.
    max_seq_len: tokens of a prompt and its continuation; by default 2048, or what the model was made for if less.
    taps: make the outputs of all modules readable in the engine, at the price of its speed.
    """

    max_batch_size: int
    max_input_len: int | None
    max_seq_len: int | None
    taps: bool


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """An engine directory and what it cost.

    Args:
        output_dir: the directory.
        architecture: Hugging Face's name of the model class.
        port: the port's name.
        dtype: of weights and activations.
        build: what the engine is for.
        engines: per rank, the compiler's report; none with the backend "reference".
        num_layers: of rank 0's network definition.
        define_seconds: reading the checkpoint and defining the networks.
        seconds: altogether.
        file_bytes: size of every file.
        notes: what the user should know.
    """

    output_dir: Path
    architecture: str
    port: str
    dtype: str
    build: BuildConfig
    engines: tuple[EngineBuild, ...]
    num_layers: int
    define_seconds: float
    seconds: float
    file_bytes: dict[str, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "output_dir": str(self.output_dir),
            "build": self.build.to_dict(),
            "engines": [asdict(engine) for engine in self.engines],
            "notes": list(self.notes),
        }


def build_engine(
    checkpoint_dir: str | Path,
    output_dir: str | Path,
    *,
    workspace: str | Path = ".",
    backend: str = "auto",
    compute_capabilities: Sequence[str] = (),
    progress: Progress | None = None,
    **limits: Unpack[Limits],
) -> BuildResult:
    """Build an engine directory.

    Args:
        checkpoint_dir: what `convert` wrote.
        output_dir: absent, empty, or an engine directory, which is replaced when the new one is complete.
        workspace: where the port is.
        backend: "tensorrt", "tensorrt_rtx", "reference" (no engine, the network file only), or "auto": `tensorrt` where
            it and a GPU that it supports are there, else `tensorrt_rtx`.
        compute_capabilities: what to compile for, such as "8.9"; the library's default if none is given.
        progress: called with (phase, done, total).
        **limits: see `Limits`.

    Raises:
        CheckpointError: the checkpoint is incomplete or altered.
        RegistryError: no port fits, or the port is not the checkpoint's.
        EngineError: the limits contradict each other or the model, or the compiler fails.
        EnvironmentLackError: the backend needs a library or a GPU that is not there.
        PortError: `output_dir` holds something that is no engine, or holds `checkpoint_dir` or lies in it.
        DiskSpaceError: the disk is full.
    """
    started = time.perf_counter()
    checkpoint = Checkpoint.read(Path(checkpoint_dir))
    port, notes = _port_of(checkpoint, Path(workspace))
    build, flavour, lacking = _plan(checkpoint, backend, compute_capabilities, limits)
    notes += lacking
    output = Path(output_dir)
    check_output(output, ENGINE, [checkpoint.path])
    require_space(output, 2 * sum((checkpoint.path / name).stat().st_size for name in checkpoint.digests))
    with output_directory(output, ENGINE, [checkpoint.path]) as directory:
        work = _Build(checkpoint, port, build, flavour, directory, limits.get("taps", False), progress)
        engines = tuple(engine for rank in range(build.world_size) if (engine := work.rank(rank)) is not None)
        report = BuildResult(
            output_dir=output,
            architecture=checkpoint.architecture,
            port=port.name,
            dtype=checkpoint.dtype,
            build=build,
            engines=engines,
            num_layers=work.num_layers,
            define_seconds=work.define_seconds,
            seconds=time.perf_counter() - started,
            file_bytes={path.name: path.stat().st_size for path in sorted(directory.iterdir())},
            notes=notes,
        )
        write_json(directory / "build_report.json", report.to_dict())
        work.write_config()
    return report


class _Build:
    """One build. A rank is defined, written, compiled and forgotten: memory holds one rank at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        port: PortEntry,
        build: BuildConfig,
        flavour: str,
        directory: Path,
        taps: bool,
        progress: Progress | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.port = port
        self.build = build
        self.flavour = flavour
        self.directory = directory
        self.taps = taps
        self.progress = progress
        self.define_seconds = 0.0
        self.num_layers = 0

    def rank(self, rank: int) -> EngineBuild | None:
        """Write the files of one rank; None where no engine is wanted."""
        started = time.perf_counter()
        self._tell("define", rank)
        with port_code(self.port):
            model = self.port.cls.from_checkpoint(self.checkpoint.path, rank=rank)
            network = model.define(max_seq_len=self.build.max_seq_len, flavour=self.flavour)
        network_file = NetworkFile.from_network(network)
        network_file.save(self.directory / network_name(rank))
        self.num_layers = self.num_layers or len(network_file.layers)
        self.define_seconds += time.perf_counter() - started
        self._tell("define", rank + 1)
        _link_or_copy(self.checkpoint.path / weights_name(rank), self.directory / weights_name(rank))
        if self.build.backend == "reference":
            return None
        return compile_engine(
            network,
            network_file,
            self.directory / engine_name(rank),
            build=self.build,
            taps=self.taps,
            progress=self.progress,
        )

    def write_config(self) -> None:
        """The last file: a directory that has it is complete."""
        known = {
            weights_name(rank): self.checkpoint.digests[weights_name(rank)] for rank in range(self.build.world_size)
        }
        names = sorted(path.name for path in self.directory.iterdir())
        digests = {name: known.get(name) or file_digest(self.directory / name) for name in names}
        engine = EngineDirectory(
            path=self.directory, build=self.build, pretrained_config=self.checkpoint.config, digests=digests
        )
        write_json(self.directory / CONFIG, engine.to_dict())

    def _tell(self, phase: str, done: int) -> None:
        if self.progress is not None:
            self.progress(phase, done, self.build.world_size)


def _port_of(checkpoint: Checkpoint, workspace: Path) -> tuple[PortEntry, tuple[str, ...]]:
    """The port of a checkpoint; a note if it was edited since the conversion."""
    port = find_port(workspace, checkpoint.architecture)
    if port.name != checkpoint.port_name:
        raise RegistryError(
            f"`{checkpoint.path}` was converted by the port `{checkpoint.port_name}`, "
            f"`{checkpoint.architecture}` is served by `{port.name}` in workspace `{workspace}`",
            hint="convert again with this workspace, or name the workspace of the other port",
        )
    if port.digest == checkpoint.port_digest:
        return port, ()
    return port, (f"the port `{port.name}` was edited since the conversion; if its weights changed, convert again",)


def _plan(
    checkpoint: Checkpoint, backend: str, compute_capabilities: Sequence[str], limits: Limits
) -> tuple[BuildConfig, str, tuple[str, ...]]:
    """What to build, the library that defines the network, and GPUs that are left out."""
    backend, flavour = _choose_library(backend)
    capabilities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if backend != "reference":
        capabilities = target_capabilities(backend, compute_capabilities, this_machine())
        if not compute_capabilities:
            capabilities, notes = _with_types(checkpoint, capabilities)
    elif compute_capabilities:
        raise PortError("`--backend reference` compiles nothing", hint="leave `--compute-capability` out")
    max_seq_len = limits.get("max_seq_len") or _default_seq_len(checkpoint)
    _refuse_long_sequences(checkpoint, max_seq_len)
    build = BuildConfig(
        backend=backend,
        library_version=str(load_flavour(flavour).__version__),
        compute_capabilities=capabilities,
        max_batch_size=limits.get("max_batch_size", DEFAULT_BATCH_SIZE),
        max_input_len=limits.get("max_input_len") or min(DEFAULT_INPUT_LEN, max_seq_len),
        max_seq_len=max_seq_len,
        world_size=checkpoint.world_size,
    )
    return build, flavour, notes


def _with_types(checkpoint: Checkpoint, capabilities: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the GPUs that are compiled for by default, those that have the types of quantized weights; and a note."""
    lacking: dict[str, str] = {}
    for found in read_formats(checkpoint.config).values():
        dtype, _ = CODES[found.kind]
        lacking |= dict.fromkeys(without_type(dtype, capabilities), dtype)
    left = tuple(each for each in capabilities if each not in lacking)
    if not lacking or not left:
        return capabilities, ()
    what = ", ".join(f"{each} has no {dtype}" for each, dtype in lacking.items())
    return left, (f"not compiled for compute capability {', '.join(lacking)}: {what}",)


def _choose_library(backend: str) -> tuple[str, str]:
    """(backend, library that defines the network): they differ where nothing is compiled."""
    require_backend(backend)
    if backend == "reference":
        return backend, str(load_flavour("auto").__name__)
    if backend == "auto":
        backend = "tensorrt" if what_gpu_lacks("tensorrt", this_machine()) is None else "tensorrt_rtx"
    return backend, str(load_flavour(backend).__name__)


def _longest(checkpoint: Checkpoint) -> int | None:
    """How many positions the model was made for, by the names that Hugging Face's configurations have for it."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(checkpoint.config.get(name), int):
            return int(checkpoint.config[name])
    return None


def _default_seq_len(checkpoint: Checkpoint) -> int:
    return min(_longest(checkpoint) or DEFAULT_SEQ_LEN, DEFAULT_SEQ_LEN)


def _refuse_long_sequences(checkpoint: Checkpoint, max_seq_len: int) -> None:
    longest = _longest(checkpoint)
    if longest is not None and max_seq_len > longest:
        raise EngineError(
            f"`max_seq_len` {max_seq_len} is more than the {longest} positions that the model was made for",
            hint=f"give `--max-seq-len` of at most {longest}",
        )


def _link_or_copy(source: Path, target: Path) -> None:
    """One file under two names where the file system can; a copy elsewhere."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
