"""How somebody ran a model is no part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from trtllm_port.evaluation.summarize_sides import load_hugging_face
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.layers.config.pretrained import load_hf_config
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner


@pytest.mark.parametrize(
    "choice",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "nonsense", "_experts_implementation": "nonsense"},
    ],
)
def test_a_config_that_names_an_implementation(tiny_llama: Path, tmp_path: Path, choice: dict[str, str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    config = json.loads((tiny_llama / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | choice))
    assert load_hf_config(model)._attn_implementation is None
    loaded = [HuggingFaceRunner.load(model, "float32").model, HuggingFaceRunner.stream(model, "float32").model]
    assert [one.config._attn_implementation for one in loaded] == ["eager", "eager"]
    load_hugging_face(model, dtype="float32", device="cpu")
    save_random_checkpoint(model, tmp_path / "random", "float32", 0)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "random")


@pytest.mark.parametrize("whole", ["flash_attention_2", None])
def test_parts_choose_nothing_either(tmp_path: Path, whole: str | None) -> None:
    transformers.Gemma3Config().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["_attn_implementation"] = whole
    config["text_config"]["_attn_implementation"] = "flash_attention_3"
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = whole_config(tmp_path)
    assert [found._attn_implementation, found.text_config._attn_implementation] == [None, None]
