"""Building an engine directory: what it holds, what is refused, and that nothing half-written is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trtllm_port import building
from trtllm_port.building import BuildResult, build_engine
from trtllm_port.errors import (
    CheckpointError,
    DiskSpaceError,
    EngineError,
    EnvironmentLackError,
    PortError,
    RegistryError,
)
from trtllm_port.runtime import EngineDirectory
from trtllm_port.runtime.engines.devices import Gpu, Machine

FILES = {"build_report.json", "rank0.constants.safetensors", "rank0.network.json", "rank0.safetensors"}


def build(checkpoint: Path, output: Path, workspace: Path, **options: Any) -> BuildResult:
    return build_engine(checkpoint, output, workspace=workspace, **{"backend": "reference"} | options)


def test_a_real_engine_is_compiled_without_a_gpu(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = build(
        tiny_checkpoint,
        tmp_path / "engine",
        llama_workspace,
        backend="tensorrt_rtx",
        compute_capabilities=("8.6", "12.0"),
        progress=lambda *step: told.append(step),
    )
    engine = result.engines[0]
    directory = EngineDirectory.read(tmp_path / "engine")
    directory.verify(directory.digests)
    assert set(directory.digests) == FILES | {"rank0.engine"}
    assert directory.build.compute_capabilities == ("8.6", "12.0")
    assert engine.engine_bytes == (tmp_path / "engine" / "rank0.engine").stat().st_size > 10_000
    assert engine.num_layers == result.num_layers > 50
    assert [(report.layers, report.fused) for report in engine.attention] == [(2, {"8.6": False, "12.0": False})]
    assert {phase for phase, _, _ in told} == {"define", "compile"}
    assert told[-1][1] == told[-1][2]
    report = json.loads((tmp_path / "engine" / "build_report.json").read_text())
    assert report == json.loads(json.dumps(result.to_dict()))


def test_auto_takes_the_library_that_needs_no_gpu(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    result = build(tiny_checkpoint, tmp_path / "engine", llama_workspace, backend="auto", compute_capabilities=["8.9"])
    assert result.build.backend == "tensorrt_rtx"


def test_the_reference_backend_compiles_nothing(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    result = build(tiny_checkpoint, tmp_path / "engine", llama_workspace, max_batch_size=7, max_seq_len=100)
    assert result.engines == ()
    assert set(EngineDirectory.read(tmp_path / "engine").digests) == FILES
    assert (result.build.max_batch_size, result.build.max_input_len, result.build.max_seq_len) == (7, 100, 100)


def test_weights_are_linked_not_copied(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    build(tiny_checkpoint, tmp_path / "engine", llama_workspace)
    weights = tmp_path / "engine" / "rank0.safetensors"
    assert weights.samefile(tiny_checkpoint / "rank0.safetensors")


def test_weights_are_copied_where_linking_fails(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_args: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    build(tiny_checkpoint, tmp_path / "engine", llama_workspace)
    directory = EngineDirectory.read(tmp_path / "engine")
    directory.verify(directory.digests)


def test_limits_follow_the_model(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    limits = build(tiny_checkpoint, tmp_path / "engine", llama_workspace).build
    assert (limits.max_batch_size, limits.max_input_len, limits.max_seq_len) == (4, 128, 128)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_seq_len": 129}, EngineError, "129 is more than the 128 positions"),
        ({"max_seq_len": 16, "max_input_len": 17}, EngineError, "`max_input_len` 17 is more than `max_seq_len` 16"),
        ({"backend": "onnx"}, PortError, "unknown backend `onnx`"),
        ({"compute_capabilities": ["8.9"]}, PortError, "compiles nothing"),
        ({"backend": "tensorrt_rtx", "compute_capabilities": ["9.0"]}, PortError, "9.0; it supports 7.5, 8.0, 8.6"),
        ({"backend": "tensorrt"}, EnvironmentLackError, "tensorrt"),
    ],
)
def test_wrong_options_leave_nothing(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, options: dict[str, Any], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        build(tiny_checkpoint, tmp_path / "engine", llama_workspace, **options)
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_compiles_only_for_the_gpu_that_is_there(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(gpu=Gpu("NVIDIA H200", "9.0"), flavours={"tensorrt": "11.4"})
    monkeypatch.setattr(building, "this_machine", lambda: machine)
    monkeypatch.setattr(building, "load_flavour", lambda _name: pytest)
    with pytest.raises(PortError, match=r"NVIDIA H200.*not for compute capability 8\.9"):
        build(tiny_checkpoint, tmp_path / "e", llama_workspace, backend="tensorrt", compute_capabilities=["8.9"])


class Interrupted(BaseException):
    """As KeyboardInterrupt and SystemExit are."""


@pytest.mark.parametrize("phase", ["define", "compile"])
def test_an_interrupted_build_leaves_nothing(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, phase: str
) -> None:
    def interrupt(name: str, done: int, _total: int) -> None:
        if name == phase and done == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        build(tiny_checkpoint, tmp_path / "engine", llama_workspace, backend="tensorrt_rtx", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building.NetworkFile, "save", full)
    with pytest.raises(DiskSpaceError):
        build(tiny_checkpoint, tmp_path / "engine", llama_workspace)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_replaced_when_the_new_one_is_complete(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path
) -> None:
    build(tiny_checkpoint, tmp_path / "engine", llama_workspace, max_batch_size=1)
    with pytest.raises(EngineError):
        build(tiny_checkpoint, tmp_path / "engine", llama_workspace, max_seq_len=129)
    assert EngineDirectory.read(tmp_path / "engine").build.max_batch_size == 1
    build(tiny_checkpoint, tmp_path / "engine", llama_workspace, max_batch_size=2)
    assert EngineDirectory.read(tmp_path / "engine").build.max_batch_size == 2


def test_a_directory_of_something_else_is_never_replaced(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PortError, match="no engine directory"):
        build(tiny_checkpoint, tmp_path, llama_workspace)
    with pytest.raises(PortError, match="no engine directory"):
        build(tiny_checkpoint, tiny_checkpoint, llama_workspace)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit(checkpoint: Path, **changes: Any) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))


def test_a_checkpoint_of_another_port_is_refused(checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    edit(checkpoint, port={"name": "other", "digest": "x"})
    with pytest.raises(RegistryError, match=r"converted by the port `other`.*served by `llama`"):
        build(checkpoint, tmp_path / "engine", llama_workspace)


def test_a_port_edited_since_the_conversion_is_told(checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    edit(checkpoint, port={"name": "llama", "digest": "of an earlier source"})
    assert "edited since" in build(checkpoint, tmp_path / "engine", llama_workspace).notes[0]


def test_no_port_is_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no port for `LlamaForCausalLM`"):
        build(checkpoint, tmp_path / "engine", tmp_path)


def test_altered_and_missing_weights_are_named(checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    weights = checkpoint / "rank0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"altered.*rank0\.safetensors"):
        build(checkpoint, tmp_path / "engine", llama_workspace)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: rank0\.safetensors"):
        build(checkpoint, tmp_path / "engine", llama_workspace)


def test_ranks_without_end_are_missing(checkpoint: Path, llama_workspace: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["mapping"]["tp_size"] = 10**12
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"incomplete: rank1\.safetensors"):
        build(checkpoint, tmp_path / "engine", llama_workspace)


def test_a_model_directory_is_no_checkpoint(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Hugging Face model directory"):
        build(tiny_llama, tmp_path / "engine", llama_workspace)
    with pytest.raises(CheckpointError, match=r"has no `config\.json`"):
        build(tmp_path, tmp_path / "engine", llama_workspace)


def test_bfloat16_is_refused_for_turing(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, write_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = write_checkpoint(tiny_llama, llama_workspace, tmp_path / "checkpoint", dtype="bfloat16")
    with pytest.raises(EngineError, match=r"bfloat16.*7\.5"):
        build(checkpoint, tmp_path / "e", llama_workspace, backend="tensorrt_rtx", compute_capabilities=["7.5"])
