"""What transformers leaves out of a model's files without a word, a port leaves out: by the same expressions."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.write.source import convert_file
from trtllm_port.codegen.write.weight_names import WeightNames
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.errors import CheckpointError
from trtllm_port.huggingface.conversion_mapping import IGNORED, ignored_names
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.layers.weights import MappingWeights, ParameterSpec, WeightMap, plan_weights
from trtllm_port.porting.create import create_port

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
SIZES |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}


def all_expressions() -> set[str]:
    """Of every class in the files of transformers' causal language models."""
    found: set[str] = set()
    for config_class in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        module = sys.modules[transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config_class].__module__]
        for value in vars(module).values():
            found.update(getattr(value, IGNORED, None) or () if isinstance(value, type) else ())
    return found


def a_name(expression: str) -> str:
    """A name that begins with what an expression finds."""
    name = re.sub(r"\(\^\|\\\.\)|\([^|]*?\)\?|[\^$\\]|\.\*", "", expression)
    assert re.search(expression, name) or name in ("position_embeddings",), expression
    return name


def dropped(weight_map: WeightMap, *names: str) -> set[str]:
    weights = {name: torch.zeros(1) for name in ("w", *names)}
    return set(plan_weights({"w": ParameterSpec((1,), "float32")}, MappingWeights(weights), weight_map).dropped)


def weight_map_of(ignored: set[str]) -> WeightMap:
    """As a port's `convert.py` has it."""
    found: dict[str, WeightMap] = {}
    exec(convert_file(WeightNames(ignored=ignored), title="Any", architecture="AnyForCausalLM"), found)
    return found["WEIGHT_MAP"]


@pytest.mark.slow  # all of transformers is imported
def test_every_expression_of_transformers_drops_what_it_finds_wherever_that_is_in_a_name() -> None:
    expressions = all_expressions()
    assert len(expressions) > 20
    weight_map = weight_map_of(expressions)
    for expression in expressions:
        name = a_name(expression)
        names = {f"{name}.x", *({f"a.{name}.x"} if "^" not in expression.replace("(^|", "") else ())}
        names = {one for one in names if not expression.endswith("$")} or {name}
        assert dropped({key: weight_map[key] for key in weight_map if key.expression == expression}, *names) == names


@pytest.mark.parametrize(
    "expression", [r"model\.layers\.46.*", r"^mtp.*", "mtp", r"(^|\.)mtp\..*", 'a"b', r"a\\", "a'\"\n", r"x{1,2}$"]
)
def test_an_expression_survives_the_file(expression: str) -> None:
    assert [key.expression for key in weight_map_of({expression})] == [expression]


def test_a_name_that_begins_with_the_expression() -> None:
    weight_map = weight_map_of({r"^mtp\.", r"model\.layers\.46.*"})
    assert dropped(weight_map, "mtp.fc", "model.layers.46.x") == {"mtp.fc", "model.layers.46.x"}
    with pytest.raises(CheckpointError, match=r"unexpected `a\.mtp\.fc`"):
        dropped(weight_map, "a.mtp.fc")


def model_of(model_type: str, **values: object) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(hf_config(model_type, **values))
    return model


def test_expressions_that_a_config_makes_hold_for_other_sizes() -> None:
    """Gemma 4's last layers take keys and values from others; their own are in the files all the same."""
    text = SIZES | {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "global_head_dim": 8}
    text |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 61}
    found = ignored_names(model_of("gemma4_text", **text, hidden_size_per_layer_input=8))
    assert r"layers.\d+.self_attn.k_proj" in found
    assert dropped(weight_map_of(found), "model.layers.31.self_attn.k_proj.weight")


def test_expressions_of_classes_stay_as_they_are() -> None:
    assert ignored_names(model_of("glm4_moe", **SIZES, **EXPERTS)) >= {r"model\.layers\.46.*", r"model\.layers\.92.*"}


@pytest.mark.slow
def test_a_checkpoint_with_a_layer_that_predicts_more_tokens(tmp_path: Path) -> None:
    config = hf_config("glm4_moe", **SIZES, **EXPERTS, n_shared_experts=1, partial_rotary_factor=0.5)
    with quiet_transformers():
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    kinds = ("gate_proj", "up_proj", "down_proj")
    more = {f"model.layers.46.mlp.experts.{e}.{kind}.weight" for e in range(4) for kind in kinds}
    more |= {"model.layers.46.eh_proj.weight", "model.layers.46.self_attn.q_proj.weight"}
    tensors |= {name: torch.ones(2, 3) for name in more}
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    create_port(tmp_path / "model", workspace=tmp_path)
    result = convert_checkpoint(tmp_path / "model", tmp_path / "ck", workspace=tmp_path)
    assert {name for name, why in result.dropped.items() if "transformers" in why} == more
