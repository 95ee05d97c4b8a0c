"""A model that is published quantized is proven with its weights as they were before, on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.quantized_models import METHODS, Packed, fp8, mxfp4, quantize, quantize_with
from trtllm_port.cli.app import main
from trtllm_port.conversion import kept_weights
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.layers.definition.quantized import WeightFormat
from trtllm_port.layers.quantization import Grid, tensors_of


@pytest.mark.parametrize("method", METHODS)
def test_a_port_is_compared_with_dequantized_weights(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    model, kind = tmp_path / "model", {"fp8": "fp8_e4m3"}.get(method, "int4")
    quantize(tiny_llama, model, method)
    words = ["diff-layers", str(model), "--workspace", str(llama_workspace), "--dtype", "float32", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "pass"
    shown = {each["what"]: each["reason"] for each in report["not_exercised"]}
    inputs = f"quantized inputs of weights in {kind} ({method}, 14 of them)"
    assert (inputs in shown) == (method == "fp8")


def test_a_conversion_that_packs_codes_wrongly_is_told_so(
    tiny_llama: Path,
    llama_workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exchanged(name: str, grid: Grid, dtype: torch.dtype) -> tuple[WeightFormat, dict[str, torch.Tensor]]:
        found, tensors = tensors_of(name, grid, dtype)
        return found, tensors | {name: tensors[name] >> 4 | tensors[name] << 4}

    quantize(tiny_llama, tmp_path / "model", "awq")
    monkeypatch.setattr(kept_weights, "tensors_of", exchanged)
    words = ["diff-layers", str(tmp_path / "model"), "--workspace", str(llama_workspace), "--json"]
    assert main([*words, "--dtype", "float32"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["first_divergence"] == "model.layers.0.self_attn.q_proj"
    cause = report["causes"][0]
    assert cause["status"] == "confirmed"
    assert "self_attn.q_proj.weight` has the two halves of each byte exchanged" in cause["cause"]


def test_an_engine_of_the_quantized_model_is_one_of_it(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digests that an engine records are those of the quantized files; of another quantization it is no engine."""
    models = {method: tmp_path / method for method in ("gptq", "awq")}
    for method, model in models.items():
        quantize(tiny_llama, model, method)
    workspace = ["--workspace", str(llama_workspace)]
    checkpoint, engine = str(tmp_path / "checkpoint"), str(tmp_path / "engine")
    convert = ["convert", "--model-dir", str(models["gptq"]), "--output-dir", checkpoint, "--dequantize"]
    assert main([*convert, "--dtype", "float32", *workspace]) == 0
    build = ["build", "--checkpoint-dir", checkpoint, "--output-dir", engine, "--backend", "reference"]
    assert main([*build, "--max-seq-len", "128", *workspace]) == 0
    compare = ["diff-layers", "--engine-dir", engine, *workspace, "--tokens", "32"]
    capsys.readouterr()
    assert main([*compare, str(models["gptq"])]) == 0
    assert main([*compare, str(models["awq"])]) == 2
    assert "is an engine of another checkpoint" in capsys.readouterr().err


def test_random_weights_are_those_of_the_plain_model(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize(tiny_llama, tmp_path / "model", "awq")
    words = ["diff-layers", str(tmp_path / "model"), "--workspace", str(llama_workspace), "--random-weights", "--json"]
    assert main(words) == 0
    assert not [each for each in json.loads(capsys.readouterr().out)["not_exercised"] if "int4" in each["what"]]


SHARED = Path(__file__).parents[3] / "shared" / "published"
SMALL = {
    **{
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 320,
        "num_hidden_layers": 2,
    },
    **{"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"},
}
PUBLISHED: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], Packed], str]] = {
    "deepseek-v3": (
        {
            **SMALL,
            **{"intermediate_size": 160, "moe_intermediate_size": 48, "first_k_dense_replace": 1},
            **{"n_routed_experts": 16, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4, "q_lora_rank": 48},
            **{"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16},
        },
        partial(fp8, block=128),
        r".*(_proj|_mqa)\.weight",
    ),
    "qwen3-30b-a3b-fp8": (
        {
            **SMALL,
            **{"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 160, "moe_intermediate_size": 48},
            **{"num_experts": 8, "num_experts_per_tok": 2},
        },
        partial(fp8, block=128),
        r".*_proj\.weight",
    ),
    "gpt-oss-20b": (
        {
            **SMALL,
            **{"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 32},
            **{
                "layer_types": ["sliding_attention", "full_attention"],
                "num_local_experts": 4,
                "num_experts_per_tok": 2,
            },
        },
        mxfp4,
        r".*experts\.\w+_proj",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_quantized_models_at_a_small_size(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the options and the quantization that their configs have, and tensors named as in the published files."""
    if not (SHARED / name).is_dir():
        pytest.skip("the published configs are not present")
    sizes, pack, which = PUBLISHED[name]
    config = json.loads((SHARED / name / "config.json").read_text())
    (tmp_path / "small").mkdir()
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}
    (tmp_path / "small" / "config.json").write_text(json.dumps(plain | sizes))
    save_random_checkpoint(tmp_path / "small", tmp_path / "plain")
    quantize_with(tmp_path / "plain", tmp_path / "model", config["quantization_config"], pack, which)
    assert main(["new", str(SHARED / name), "--workspace", str(tmp_path)]) == 0
    assert f"quantized ({config['quantization_config']['quant_method']})" in capsys.readouterr().out
    words = [str(tmp_path / "model"), "--workspace", str(tmp_path), "--json"]
    assert main(["diff-layers", *words, "--dtype", "float32"]) == 0
    capsys.readouterr()
    assert main(["convert", "--output-dir", str(tmp_path / "checkpoint"), "--model-dir", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["quantized"]) >= 2 * 2  # two layers
    assert not result["dequantized"]  # every quantized weight stayed so
