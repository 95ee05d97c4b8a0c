"""Sessions: from an engine directory and from memory, with limits, taps, and the name of what computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trtllm_port.building import build_engine
from trtllm_port.errors import EngineError, EnvironmentLackError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime import Session

TOKENS = torch.tensor([[1, 5, 9, 23, 41, 7, 30, 12]])


@pytest.fixture(scope="module")
def engine_dir(tiny_checkpoint: Path, llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build") / "engine"
    build_engine(
        tiny_checkpoint,
        output,
        workspace=llama_workspace,
        backend="tensorrt_rtx",
        compute_capabilities=["8.9"],
        max_input_len=16,
        max_batch_size=2,
    )
    return output


@pytest.fixture(scope="module")
def hugging_face(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


def positions(tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + tokens.shape[1]).expand_as(tokens)


def test_logits_of_an_engine_directory_are_those_of_transformers(engine_dir: Path, hugging_face: Any) -> None:
    session = Session.load(engine_dir)
    cache = session.new_cache(1)
    logits = session.forward(TOKENS, positions(TOKENS), cache, torch.arange(8)[None])
    with torch.inference_mode():
        expected = hugging_face(TOKENS).logits
    assert logits.shape == (1, 8, 61)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_cache_carries_a_sequence_on(engine_dir: Path, hugging_face: Any) -> None:
    session = Session.load(engine_dir)
    cache = session.new_cache(1)
    session.forward(TOKENS[:, :5], positions(TOKENS[:, :5]), cache)
    logits = session.forward(TOKENS[:, 5:], positions(TOKENS[:, 5:], 5), cache)
    with torch.inference_mode():
        expected = hugging_face(TOKENS).logits[:, -1:]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_session_says_what_computes_and_why(engine_dir: Path) -> None:
    session = Session.load(engine_dir)
    assert session.executor.name.startswith("reference executor")
    assert "GPU" in session.note
    assert Session.load(engine_dir, backend="reference").note == ""
    assert session.config["build_config"]["backend"] == "tensorrt_rtx"
    assert (session.max_batch_size, session.max_input_len, session.max_seq_len, session.vocab_size) == (2, 16, 128, 61)


def test_a_network_in_memory_gives_the_logits_of_its_engine(
    engine_dir: Path, tiny_llama: Path, llama_workspace: Path
) -> None:
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(tiny_llama, "float32")
    memory, disk = Session.from_network(port.define(max_seq_len=128)), Session.load(engine_dir)
    ours, theirs = (s.forward(TOKENS, positions(TOKENS), s.new_cache(1)) for s in (memory, disk))
    assert torch.equal(ours, theirs)


def test_taps_are_streamed(engine_dir: Path) -> None:
    session = Session.load(engine_dir)
    seen: dict[str, torch.Size] = {}
    session.forward(
        TOKENS,
        positions(TOKENS),
        session.new_cache(1),
        on_tap=lambda name, tensor: seen.update({name: tensor.shape}),
        taps=["model.layers.1.mlp", "model.norm"],
    )
    assert seen == {"model.layers.1.mlp": (1, 8, 32), "model.norm": (1, 8, 32)}


def test_asking_for_tensorrt_without_a_gpu_is_an_error(engine_dir: Path) -> None:
    with pytest.raises(EnvironmentLackError, match="tensorrt_rtx engine cannot run here"):
        Session.load(engine_dir, backend="tensorrt_rtx")


def test_a_device_that_torch_lacks_is_an_error(engine_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch has CUDA here")
    with pytest.raises(EnvironmentLackError, match="cuda"):
        Session.load(engine_dir, backend="reference", device="cuda")


@pytest.mark.parametrize("name", ["rank0.network.json", "rank0.safetensors", "rank0.constants.safetensors"])
def test_altered_files_are_refused_by_name(engine_dir: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(engine_dir, tmp_path / "engine")
    (copy / name).write_bytes((copy / name).read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(EngineError, match=name.replace(".", r"\.")):
        Session.load(copy, backend="reference")


@pytest.mark.parametrize("left_out", ["rank0.network.json", "rank0.safetensors", "rank0.constants.safetensors", ""])
def test_what_the_engine_does_not_list_is_not_read(engine_dir: Path, tmp_path: Path, left_out: str) -> None:
    engine = Path(shutil.copytree(engine_dir, tmp_path / "engine"))
    config = json.loads((engine / "config.json").read_text())
    config["digests"] = {name: digest for name, digest in config["digests"].items() if left_out and name != left_out}
    (engine / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=f"was built without `{left_out or 'rank0.network.json'}`"):
        Session.load(engine, backend="reference")


def test_an_engine_of_several_ranks_is_refused(engine_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(engine_dir, tmp_path / "engine")
    config = json.loads((copy / "config.json").read_text())
    config["build_config"]["world_size"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match="2 ranks"):
        Session.load(copy)


def test_the_engine_file_itself_is_not_read_by_the_reference_executor(engine_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(engine_dir, tmp_path / "engine")
    (copy / "rank0.engine").write_bytes(b"altered")
    Session.load(copy, backend="reference")


def test_a_network_without_logits_is_refused(engine_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "engine"
    shutil.copytree(engine_dir, copy)
    network = copy / "rank0.network.json"
    document = json.loads(network.read_text())
    document["outputs"] = [name for name in document["outputs"] if name != "logits"]
    network.write_text(json.dumps(document))
    config = json.loads((copy / "config.json").read_text())
    config["digests"][network.name] = file_digest(network)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match="no output `logits`"):
        Session.load(copy, backend="reference")
