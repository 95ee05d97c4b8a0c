"""What transformers saves becomes what it holds in memory, for every kind of rewriting that it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.conversion_mapping import stored_tensors
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.layers import Concat, Stack
from trtllm_port.layers.weights.steps import run_steps

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 31}
EXPERTS = {"num_key_value_heads": 2, "moe_intermediate_size": 12, "num_experts": 3, "num_experts_per_tok": 2}


def _model(model_type: str, **values: Any) -> nn.Module:
    config = transformers.CONFIG_MAPPING[model_type](**SIZES, **values)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("mixtral", {"num_local_experts": 3, "num_key_value_heads": 2}),
        ("qwen3_moe", EXPERTS),
        ("granitemoe", {"num_local_experts": 3, "num_key_value_heads": 2}),
        ("llama", {}),
    ],
)
def test_files_become_parameters(model_type: str, values: dict[str, Any], tmp_path: Path) -> None:
    model = _model(model_type, **values)
    with quiet_transformers():
        model.save_pretrained(tmp_path)  # type: ignore[operator]
    files = load_file(tmp_path / "model.safetensors")
    made: dict[str, torch.Tensor] = {}
    for stored in stored_tensors(model):
        given = iter([files.pop(name) for name in stored.sources])
        groups = [[next(given) for _ in range(count)] for count in stored.counts]
        made |= dict(zip(stored.targets, run_steps(stored.steps, groups), strict=True))
    expected = model.state_dict()
    assert made.keys().isdisjoint(files)
    for name, tensor in {**files, **made}.items():
        assert torch.equal(tensor, expected[name])
    assert {**files, **made}.keys() | {"lm_head.weight"} == expected.keys()
    assert bool(made) == (model_type != "llama")


def test_experts_need_two_steps() -> None:
    found = next(stored for stored in stored_tensors(_model("qwen3_moe", **EXPERTS)) if len(stored.counts) == 2)
    assert found.steps == (Stack(0), Concat(1))
    assert found.counts == (3, 3)
    assert found.targets == ("model.layers.0.mlp.experts.gate_up_proj",)


def test_an_operation_without_a_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.core_model_loading import Interleave, WeightConverter

    converter = WeightConverter("lm_head.weight", "lm_head.weight", [Interleave(0)])
    model = _model("llama", tie_word_embeddings=False)
    monkeypatch.setattr(
        "trtllm_port.huggingface.conversion_mapping.get_model_conversion_mapping", lambda *_, **__: [converter]
    )
    with pytest.raises(UnsupportedModelError, match=r"`lm_head.weight` with `Interleave"):
        list(stored_tensors(model))
