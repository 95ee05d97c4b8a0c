"""The headers of safetensors files: no form but the format's is taken, and nothing is allocated on their word."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.weights.header import TensorEntry, read_header

FORM = "damaged or no safetensors file"


def entry(start: int = 0, stop: int = 8, *, dtype: Any = "F32", shape: Any = (2,), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


def write(path: Path, header: object, data: int = 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


def test_what_safetensors_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"b": torch.ones(2, 3, dtype=torch.bfloat16), "a": torch.zeros(4), "e": torch.zeros(0, 5)}
    save_file(tensors, path, metadata={"format": "pt"})
    found = read_header(path)
    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
        "b": ("BF16", (2, 3)),
        "a": ("F32", (4,)),
        "e": ("F32", (0, 5)),
    }
    assert max(each.stop for each in found.values()) == path.stat().st_size


def test_a_data_type_that_is_not_known_here(tmp_path: Path) -> None:
    """What has it is refused where it is used; other tensors of the file can be."""
    found = read_header(write(tmp_path / "a.safetensors", {"a": entry(dtype="F8_E4M3", shape=[8])}))
    assert found["a"].dtype == "F8_E4M3"
    assert found["a"] == TensorEntry("F8_E4M3", (8,), found["a"].start, found["a"].start + 8)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe{}",
        [1],
        {"a": 3},
        {"a": None},
        {"a": {"dtype": "F32"}},
        {"a": entry(note="x")},
        {"a": entry(dtype=4)},
        {"a": entry(dtype=["F32"])},
        {"a": entry(shape=2)},
        {"a": entry(shape=["2"])},
        {"a": entry(shape=[True, 2])},
        {"a": entry(shape=[2.0])},
        {"a": entry(shape=[-2])},
        {"a": entry(shape=[-1, -2])},
        {"a": entry(shape=[10**30])},
        {"a": entry(shape={"0": 2})},
        {"a": entry(shape=[3])},
        {"a": entry(8, 0)},
        {"a": entry(-8, 0)},
        {"a": {**entry(), "data_offsets": [0, 8, 8]}},
        {"a": {**entry(), "data_offsets": [[0], 8]}},
        {"a": {**entry(), "data_offsets": {"0": 8}}},
        {"a": entry(0, 4, shape=[1]), "b": entry(2, 6, shape=[1])},
        {"a": entry(0, 4, shape=[1]), "b": entry(8, 12, shape=[1])},
        {"a": entry(4, 8, shape=[1])},
        {"a": entry(), "__metadata__": "x"},
        {"a": entry(), "__metadata__": {"format": 1}},
    ],
)
def test_forms_that_the_format_does_not_have(tmp_path: Path, header: object) -> None:
    with pytest.raises(CheckpointError, match=FORM):
        read_header(write(tmp_path / "a.safetensors", header))


@pytest.mark.parametrize("data", [0, 7, 9])
def test_more_or_less_data_than_the_header_says(tmp_path: Path, data: int) -> None:
    with pytest.raises(CheckpointError, match="its header says"):
        read_header(write(tmp_path / "a.safetensors", {"a": entry()}, data))


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """The file takes no room on the disk: its bytes were never written."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((4 << 30).to_bytes(8, "little"))
        file.truncate(5 << 30)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="its header would have 4,294,967,296 bytes"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_directory_and_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no regular file"):
        read_header(tmp_path)
    with pytest.raises(CheckpointError, match="is missing"):
        read_header(tmp_path / "absent")
