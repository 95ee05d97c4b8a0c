"""Reading weight files: whole, sharded, broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.weights import HuggingFaceWeights, MappingWeights, SafetensorsFile

A, B = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)


def shards(directory: Path) -> Path:
    save_file({"a": A}, directory / "model-00001-of-00002.safetensors")
    save_file({"b": B}, directory / "model-00002-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return directory


def test_one_file(tmp_path: Path) -> None:
    save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    weights = HuggingFaceWeights(tmp_path)
    assert sorted(weights.names()) == ["a", "b"]
    assert (weights.shape("a"), weights.dtype("a"), weights.dtype("b")) == ((2, 3), "float32", "bfloat16")
    assert torch.equal(weights.tensor("a"), A)
    assert weights.files == [tmp_path / "model.safetensors"]


def test_tensors_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    file = SafetensorsFile(tmp_path / "model.safetensors")
    assert file.tensor("a").untyped_storage().nbytes() >= A.nbytes
    assert file.tensor("a").data_ptr() == file.tensor("a").data_ptr()


def test_shards(tmp_path: Path) -> None:
    weights = HuggingFaceWeights(shards(tmp_path))
    assert torch.equal(weights.tensor("b"), B)
    assert [path.name[:11] for path in weights.files] == ["model-00001", "model-00002"]


def test_missing_and_truncated_shards_are_reported_together(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    second = tmp_path / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-3])
    with pytest.raises(CheckpointError) as caught:
        HuggingFaceWeights(tmp_path)
    assert "model-00001-of-00002.safetensors` is missing" in caught.value.message
    assert "its header says" in caught.value.message


@pytest.mark.parametrize("kept", [0, 5, 20])
def test_a_file_cut_in_its_header(tmp_path: Path, kept: int) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated or no safetensors file"):
        HuggingFaceWeights(tmp_path)


@pytest.mark.parametrize("header", [b"[1]", b"{'a'}", b'{"a": {"dtype": "F32"}}', b'{"a": 1, "a": 2}'])
def test_a_file_that_is_something_else(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        HuggingFaceWeights(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    save_file({"a": A, "b": B}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"`a` is in `model-00001-of-00002.safetensors` and in `model-00002"):
        HuggingFaceWeights(tmp_path)


def test_an_index_that_promises_too_much(tmp_path: Path) -> None:
    shards(tmp_path)
    save_file({"c": A}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="`a` is in the index, but not in `model-00001"):
        HuggingFaceWeights(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": []}'])
def test_a_broken_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="is no index of shards"):
        HuggingFaceWeights(tmp_path)


def test_an_index_that_leaves_its_directory(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside its directory"):
        HuggingFaceWeights(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match="pickled weights") as caught:
        HuggingFaceWeights(tmp_path)
    assert "safetensors" in str(caught.value.hint)


def test_a_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no `model.safetensors`"):
        HuggingFaceWeights(tmp_path)


def test_a_mapping() -> None:
    weights = MappingWeights({"b": B})
    assert (list(weights.names()), weights.shape("b"), weights.dtype("b")) == (["b"], (4,), "bfloat16")
