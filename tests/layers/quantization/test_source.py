"""A quantized directory as the model that it was quantized from: names, types, files, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.layers.quantization import QuantizedSource, open_weights, read_scheme
from trtllm_port.layers.weights import HuggingFaceWeights, MappingWeights, ParameterSpec, plan_weights

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [4, 8]}


def tensors(c: Any) -> dict[str, torch.Tensor]:
    return {
        "embed.weight": torch.rand(5, 16).to(torch.bfloat16),
        "0.q_proj.weight": c.float8(8, 16),
        "0.q_proj.weight_scale_inv": c.scales(2, 2),
        "0.q_proj.bias": torch.rand(8).to(torch.bfloat16),
        "0.attn.k_scale": torch.ones(1),
        "0.attn.v_scale": torch.ones(1),
        "0.norm.weight": torch.ones(16),
    }


def write(directory: Path, content: dict[str, torch.Tensor], config: dict[str, Any], **more: Any) -> Path:
    save_file(content, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"quantization_config": config, **more}))
    return directory


def test_a_directory(checkpoints: Any, tmp_path: Path) -> None:
    made = tensors(checkpoints)
    source = open_weights(write(tmp_path, made, FP8, torch_dtype="float16"))
    assert isinstance(source, QuantizedSource)
    assert sorted(source.names()) == ["0.norm.weight", "0.q_proj.bias", "0.q_proj.weight", "embed.weight"]
    assert [source.dtype(name) for name in sorted(source.names())] == ["float32", "bfloat16", "float16", "bfloat16"]
    assert source.shape("0.q_proj.weight") == (8, 16)
    exact = source.quantized("0.q_proj.weight")
    assert exact is not None
    assert torch.equal(source.tensor("0.q_proj.weight"), exact.dequantize(torch.float16))
    assert torch.equal(source.tensor("embed.weight"), made["embed.weight"])
    assert source.quantized("embed.weight") is None
    assert source.left_out == ("0.attn.k_scale", "0.attn.v_scale")
    assert torch.equal(open_weights(tmp_path, dtype="float32").tensor("0.q_proj.weight"), exact.dequantize())


def test_its_types_where_the_config_names_none(checkpoints: Any, tmp_path: Path) -> None:
    write(tmp_path, tensors(checkpoints), FP8, dtype="auto")
    assert open_weights(tmp_path).dtype("0.q_proj.weight") == "float32"  # of the first by name, `0.norm.weight`
    write(tmp_path, tensors(checkpoints), FP8, text_config={"dtype": "bfloat16"})
    assert open_weights(tmp_path).dtype("0.q_proj.weight") == "bfloat16"


def test_a_directory_that_is_not_quantized(checkpoints: Any, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert isinstance(open_weights(tmp_path), HuggingFaceWeights)
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    with pytest.raises(UnsupportedModelError, match="`quant_method` 'bitsandbytes'"):
        open_weights(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json` does not exist"):
        open_weights(tmp_path)


def test_a_port_is_planned_as_for_the_unquantized_model(checkpoints: Any) -> None:
    source = checkpoints.open(tensors(checkpoints), FP8, "float16")
    specs = {name: ParameterSpec(source.shape(name), "float16") for name in source.names()}
    plan = plan_weights(specs, source, {})
    loaded = [plan.load(entry, source) for entry in plan.entries]
    assert {name for each in loaded for name in each} == set(specs)


def test_nothing_is_kept_and_one_weight_is_read_at_a_time(checkpoints: Any) -> None:
    read: list[str] = []

    class Watched(MappingWeights):
        def tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return super().tensor(name)

    made = {f"{i}.{name}": t for i in range(3) for name, t in tensors(checkpoints).items()}
    scheme = read_scheme({"quantization_config": FP8})
    assert scheme is not None
    source = QuantizedSource(Watched(made), scheme)
    source.summary()
    assert read == []
    source.check_values()
    assert read == [f"{i}.0.q_proj.weight_scale_inv" for i in range(3)]
    read.clear()
    source.tensor("1.0.q_proj.weight")
    assert set(read) == {"1.0.q_proj.weight", "1.0.q_proj.weight_scale_inv"}


def test_the_summary(checkpoints: Any) -> None:
    found = checkpoints.open(tensors(checkpoints), {**FP8, "rounding": 1}).summary()
    assert json.loads(json.dumps(found.to_dict())) == {
        "method": "fp8",
        "groups": [
            {
                "layout": "fp8",
                "kind": "fp8_e4m3",
                "bits": 8,
                "granularity": "block",
                "block": [4, 8],
                "activation": "fp8_e4m3 dynamic per group of 8",
                "count": 1,
            }
        ],
        "unquantized": 3,
        "kv_cache": None,
        "left_out": ["0.attn.k_scale", "0.attn.v_scale"],
        "unread": ["quantization_config.rounding"],
    }


def test_problems_of_all_weights_are_reported_together(checkpoints: Any) -> None:
    bad = {f"{i}.{name}": t for i in range(3) for name, t in tensors(checkpoints).items()}
    del bad["2.0.q_proj.weight_scale_inv"]
    bad["0.0.q_proj.weight_scale_inv"] = torch.ones(2, 3)
    bad["1.0.q_proj.weight"] = torch.ones(8, 16)
    message = checkpoints.refusal(bad, FP8)
    assert [part.split("`")[1] for part in message.split("; ")] == [
        "0.0.q_proj.weight_scale_inv",
        "1.0.q_proj",
        "2.0.q_proj.weight_scale_inv",
    ]
    values = {f"{i}.{name}": t for i in range(3) for name, t in tensors(checkpoints).items()}
    values["0.0.q_proj.weight_scale_inv"], values["2.0.q_proj.weight_scale_inv"] = torch.zeros(2, 2), -torch.ones(2, 2)
    message = checkpoints.refusal(values, FP8)
    assert message.count("weight_scale_inv") == 2
    source = checkpoints.open(values, FP8)
    with pytest.raises(CheckpointError) as caught:
        source.tensor("2.0.q_proj.weight")
    assert caught.value.message == "`2.0.q_proj.weight_scale_inv` has negative values"


def test_a_checkpoint_in_which_nothing_is_quantized(checkpoints: Any) -> None:
    assert "no weight is quantized, though" in checkpoints.refusal({"a.weight": torch.ones(2, 2)}, FP8)
