"""Architectures of every kind of block, each generated with no code written for it, against Hugging Face."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from trtllm_port.codegen import PortSource, check_port, generate_port

ARCHITECTURES: dict[str, list[str]] = {  # model type → what its port must say
    "mistral": ["window=self.config.sliding_window"],
    "qwen2": ["config.head_dim or config.hidden_size // config.num_attention_heads", "if config.tie_word_embeddings:"],
    "qwen3": ["self.q_norm = RmsNorm(self.head_dim, eps=config.rms_norm_eps)"],
    "phi": ["query_states[..., : self.rotary_ndims]", "concat([query_rot, query_pass], dim=-1)"],
    "gpt_neox": ["mlp_output + attn_output + hidden_states", ".chunk(3, dim=-1)"],
    "gpt2": [
        "Conv1D(3 * config.n_embd, config.n_embd)",
        "config.n_inner or 4 * config.n_embd",
        "self.wpe(position_ids)",
    ],
    "gemma2": ["causal_mask_mapping[layer_type]", "self.config.attn_logit_softcapping", "offset=1.0"],
    "olmo2": ["class Olmo2RMSNorm(Module)"],
    "granite": ["self.config.residual_multiplier", "scale=self.config.attention_multiplier"],
    "starcoder2": ["LayerNorm(config.hidden_size, eps=config.norm_epsilon)"],
    "stablelm": ["bias=config.use_qkv_bias"],
}


def _generate(model_type: str) -> tuple[PortSource, Any]:
    config = transformers.CONFIG_MAPPING[model_type]()
    return generate_port(config), config


def test_llama_agrees_with_hugging_face(llama: PortSource) -> None:
    check = check_port(transformers.LlamaConfig(), source=llama)
    assert check.passed, check
    assert check.taps > 500
    assert check.worst_error is not None
    assert check.worst_error < 1e-5
    assert "reference executor" in str(check.executor)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_port_agrees_with_hugging_face(model_type: str, tmp_path: Path) -> None:
    port, config = _generate(model_type)
    assert port.skeletons == ()
    assert len(port.files["model.py"].splitlines()) < 170
    for text in ARCHITECTURES[model_type]:
        assert text in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check
    for file, text in port.files.items():
        (tmp_path / file).write_text(text)
    pyproject = str(Path(__file__).parents[2] / "pyproject.toml")
    for command in ("check", "format"):
        options = ["--diff"] if command == "format" else []
        run = subprocess.run(
            [sys.executable, "-m", "ruff", command, *options, "--config", pyproject, "--no-cache", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


ROPE = {"rope_theta": 10000.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with biases, tied, llama3 scaling": (
        "llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": ROPE
            | {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            | {"original_max_position_embeddings": 512},
        },
    ),
    "llama with linear scaling, one key head, gelu": (
        "llama",
        {
            "rope_parameters": ROPE | {"rope_type": "linear", "factor": 4.0},
            "num_key_value_heads": 1,
            "hidden_act": "gelu",
        },
    ),
    "qwen2 with a head size of its own": ("qwen2", {"head_dim": 48}),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "qwen2 with windows in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2, "num_hidden_layers": 6},
    ),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
    "phi with query and key norms": ("phi", {"qk_layernorm": True}),
    "gpt2 scaled by layer, with an inner size": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 100}),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_options_of_the_model_are_in_its_port(variant: str) -> None:
    model_type, values = VARIANTS[variant]
    config = transformers.CONFIG_MAPPING[model_type](**values)
    port = generate_port(config)
    assert port.skeletons == ()
    check = check_port(config, source=port)
    assert check.passed, check


HUB: dict[str, dict[str, Any]] = {  # as in the `config.json` of models on the hub, with its legacy spellings
    "Llama-3.1": {
        "model_type": "llama",
        "eos_token_id": [128001, 128008, 128009],
        "num_key_value_heads": 8,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
        | {"original_max_position_embeddings": 8192},
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
    },
    "Qwen3": {"model_type": "qwen3", "rope_theta": 1000000, "rope_scaling": None, "head_dim": 128, "use_mrope": False},
    "phi-2": {"model_type": "phi", "partial_rotary_factor": 0.4, "num_key_value_heads": 32, "resid_pdrop": 0.1},
    "pythia": {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000},
    "gpt2": {"model_type": "gpt2", "n_ctx": 1024, "task_specific_params": {"text-generation": {"do_sample": True}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_a_config_as_on_the_hub(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HUB[name]))
    port = generate_port(tmp_path)
    assert "rope_parameters" not in port.ledger.fixed
    assert check_port(tmp_path, source=port).passed
