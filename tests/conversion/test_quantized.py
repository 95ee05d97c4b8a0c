"""A quantized checkpoint converts as the model that it was quantized from, or says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.quantized_models import METHODS, quantize
from trtllm_port.cli.app import main
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.huggingface.loading import load_model
from trtllm_port.layers.quantization import plain_directory
from trtllm_port.registry.ports import find_port

Quantized = tuple[Path, dict[str, torch.Tensor]]


@pytest.fixture(params=METHODS)
def quantized(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path: Path) -> Quantized:
    """A directory, and the weights that its tensors stand for."""
    return tmp_path / "quantized", quantize(tiny_llama, tmp_path / "quantized", request.param)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_rounded_once(quantized: Quantized, llama_workspace: Path, tmp_path: Path, dtype: str) -> None:
    model, plain = quantized
    result = convert_checkpoint(model, tmp_path / "ck", workspace=llama_workspace, dtype=dtype, weights="dequantize")
    found = load_file(tmp_path / "ck" / "rank0.safetensors")
    assert len(found) == result.tensors == len(plain)
    for name, tensor in plain.items():
        assert torch.equal(found[name], tensor.to(getattr(torch, dtype))), name
    assert set(result.source) == {"config.json", "model.safetensors"}


def test_a_port_in_memory_and_hugging_face_get_the_same(quantized: Quantized, llama_workspace: Path) -> None:
    model, plain = quantized
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(model, "float32")
    with plain_directory(model) as directory:
        config = json.loads((directory / "config.json").read_text())
        assert "quantization_config" not in config
        from trtllm_port.huggingface.configs import whole_config

        loaded, info = load_model(directory, whole_config(directory), torch.float64)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = loaded.state_dict()
    for name, tensor in plain.items():
        assert torch.equal(port.weights[name], tensor), name
        assert torch.equal(state[name], tensor.double()), name
    assert not directory.exists()


def test_a_plain_model_is_given_as_it_is(tiny_llama: Path) -> None:
    with plain_directory(tiny_llama) as directory:
        assert directory == tiny_llama


BAD: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "is missing beside `model.layers.0.self_attn.o_proj.weight`": lambda t: t.pop(
        "model.layers.0.self_attn.o_proj.weight_scale_inv"
    ),
    "q_proj.weight_scale_inv` has NaN": lambda t: t["model.layers.1.self_attn.q_proj.weight_scale_inv"].fill_(
        torch.nan
    ),
    "q_proj.weight_scale_inv` has zeros": lambda t: t["model.layers.1.self_attn.q_proj.weight_scale_inv"].fill_(0.0),
    "q_proj.weight_scale_inv` has negative": lambda t: t["model.layers.1.self_attn.q_proj.weight_scale_inv"].neg_(),
    "k_proj.weight_scale_inv` has shape (7, 9)": lambda t: t.update(
        {"model.layers.0.self_attn.k_proj.weight_scale_inv": torch.ones(7, 9)}
    ),
}


@pytest.mark.parametrize("more", [[], ["--dequantize"]], ids=["kept", "dequantized"])
@pytest.mark.parametrize(("told", "spoil"), [pytest.param(told, spoil, id=told) for told, spoil in BAD.items()])
def test_bad_tensors_are_named_and_nothing_is_left(
    tiny_llama: Path,
    llama_workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    told: str,
    spoil: Callable[[dict[str, torch.Tensor]], object],
    more: list[str],
) -> None:
    model = tmp_path / "model"
    quantize(tiny_llama, model, "fp8")
    tensors = load_file(model / "model.safetensors")
    spoil(tensors)
    save_file(tensors, model / "model.safetensors")
    words = ["convert", "--model-dir", str(model), "--output-dir", str(tmp_path / "ck"), *more]
    assert main([*words, "--workspace", str(llama_workspace)]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ck").exists()
    with pytest.raises(CheckpointError), plain_directory(model):
        pass


def test_a_method_that_is_not_read_is_named_with_those_that_are(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    quantize(tiny_llama, model, "fp8")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(UnsupportedModelError, match="'hqq'; those that are read are fp8, compressed-tensors, gptq"):
        convert_checkpoint(model, tmp_path / "ck", workspace=llama_workspace, weights="dequantize")
