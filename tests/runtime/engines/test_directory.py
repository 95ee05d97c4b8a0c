"""An engine directory is complete and unaltered, or refused with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.errors import EngineError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.runtime.engines import directory as engine_directory
from trtllm_port.runtime.engines.directory import BuildConfig, EngineDirectory


def build_config(**changes: Any) -> BuildConfig:
    values: dict[str, Any] = {
        "backend": "tensorrt_rtx",
        "library_version": "1.7.1",
        "compute_capabilities": ("8.9",),
        "max_batch_size": 2,
        "max_input_len": 8,
        "max_seq_len": 16,
    }
    return BuildConfig(**values | changes)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "rank0.engine").write_bytes(b"compiled")
    (tmp_path / "rank0.safetensors").write_bytes(b"weights")
    digests = {name: file_digest(tmp_path / name) for name in ("rank0.engine", "rank0.safetensors")}
    directory = EngineDirectory(
        path=tmp_path, build=build_config(), pretrained_config={"vocab_size": 5}, digests=digests
    )
    (tmp_path / "config.json").write_text(json.dumps(directory.to_dict()))
    return tmp_path


def test_what_is_written_is_read(engine: Path) -> None:
    directory = EngineDirectory.read(engine)
    assert directory.build == build_config()
    assert directory.pretrained_config == {"vocab_size": 5}
    directory.verify(directory.digests)


def test_digests_are_those_of_the_stages(engine: Path) -> None:
    assert engine_directory.file_digest(engine / "rank0.engine") == file_digest(engine / "rank0.engine")


def test_an_altered_file_is_named(engine: Path) -> None:
    (engine / "rank0.engine").write_bytes(b"compileD")
    directory = EngineDirectory.read(engine)
    directory.verify(["rank0.safetensors"])
    with pytest.raises(EngineError, match=r"rank0\.engine"):
        directory.verify(["rank0.engine"])


def test_a_file_that_the_build_did_not_write_is_not_trusted(engine: Path) -> None:
    (engine / "rank1.engine").write_bytes(b"smuggled in")
    with pytest.raises(EngineError, match=r"rank1\.engine"):
        EngineDirectory.read(engine).verify(["rank1.engine"])


def test_a_missing_file_is_named(engine: Path) -> None:
    (engine / "rank0.safetensors").unlink()
    with pytest.raises(EngineError, match=r"incomplete: rank0.safetensors"):
        EngineDirectory.read(engine)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no `config.json`"),
        ("{", "not JSON"),
        ('{"architecture": "LlamaForCausalLM"}', "no `build_config`"),
        ('{"version": 99, "build_config": {}}', "version 99"),
        (
            '{"version": 1, "build_config": {"backend": "x"}, "pretrained_config": {}, "digests": {}}',
            "not the configuration",
        ),
        ('{"version": 1, "build_config": {}}', "not the configuration"),
    ],
)
def test_other_directories_are_refused(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(EngineError, match=words):
        EngineDirectory.read(tmp_path)


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(EngineError, match="`max_input_len` 17 is more than `max_seq_len` 16"):
        build_config(max_input_len=17)
    with pytest.raises(EngineError, match="max_batch_size"):
        build_config(max_batch_size=0)
