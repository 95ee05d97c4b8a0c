"""Quantized weights stay quantized: in the checkpoint, in the network, and in the executor's memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.quantized_models import METHODS, quantize
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.layers.quantization import WeightsChoice
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime.session import Session

KINDS = {"fp8": "fp8_e4m3", "gptq": "int4", "awq": "int4"}


def logits(model: object, tokens: torch.Tensor) -> torch.Tensor:
    network = model.define(max_seq_len=tokens.shape[1])  # type: ignore[attr-defined]
    session = Session.from_network(network, max_batch_size=len(tokens))
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    return session.forward(tokens, positions, session.new_cache(len(tokens)), positions.contiguous())


@pytest.mark.parametrize("method", METHODS)
def test_a_port_computes_with_codes_as_with_what_they_stand_for(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, method: str
) -> None:
    model = tmp_path / "model"
    quantize(tiny_llama, model, method)
    port = find_port(llama_workspace, "LlamaForCausalLM")
    results = []
    choices: dict[str, WeightsChoice] = {"kept": "keep", "plain": "dequantize"}
    for name, choice in choices.items():
        result = convert_checkpoint(model, tmp_path / name, workspace=llama_workspace, dtype="float32", weights=choice)
        assert not result.dequantized
        assert set(result.quantized.values()) == ({KINDS[method]} if choice == "keep" else set())
        results.append(result)
    assert results[0].size < results[1].size / 2
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    kept, plain = (logits(port.cls.from_checkpoint(tmp_path / name), tokens) for name in ("kept", "plain"))
    torch.testing.assert_close(kept, plain, rtol=0, atol=float(plain.abs().max()) * 1e-5)


def test_the_config_says_what_is_quantized(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    quantize(tiny_llama, tmp_path / "model", "awq")
    convert_checkpoint(tmp_path / "model", tmp_path / "ck", workspace=llama_workspace, dtype="float16")
    section = json.loads((tmp_path / "ck" / "config.json").read_text())["quantization"]
    parameters = section.pop("parameters")
    assert section == {
        "quant_algo": "W4A16",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "has_zero_point": True,
        "pre_quant_scale": False,
        "exclude_modules": [],
    }
    assert len(parameters) == 14
    tensors = load_file(tmp_path / "ck" / "rank0.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert parameters[name] == {"kind": "int4", "inputs": -1, "activation": None}
    assert tensors[name].dtype == torch.uint8
    assert tensors[f"{name}_scale"].dtype == tensors[f"{name}_zero_point"].dtype == torch.float16
