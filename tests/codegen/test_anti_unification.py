"""Blocks that differ, merged into one class: traces of small models, printed without exploring their configs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.configs.sizes import make_samples
from trtllm_port.codegen.ir.expressions import MISSING, SymbolicValue
from trtllm_port.codegen.lower.lowering import lower
from trtllm_port.codegen.merge.anti_unification import _Merger
from trtllm_port.codegen.merge.classes import make_classes
from trtllm_port.codegen.record.tracing import trace
from trtllm_port.codegen.write.classes import ClassWriter
from trtllm_port.huggingface.quiet import quiet_transformers


def classes_of(model_type: str, *, traces: int = 2, **values: Any) -> dict[str, list[str]]:
    """Class name → its lines."""
    with quiet_transformers():
        samples = [lower(trace(sample)) for sample in make_samples(hf_config(model_type, **values)).traced[:traces]]
        classes = make_classes(samples)
        writer = ClassWriter(samples, "Config")
        texts = [writer.write(item, is_model=item is classes[-1]) for item in classes]
    return {text.name: [line.strip() for line in text.lines] for text in texts}


def test_a_dict_of_the_config_is_one_value() -> None:
    """Its entries need not be the same ones in all traces, and the port names the whole."""
    instances: list[Any] = [None, None, None]
    merger = _Merger(instances, lambda block: None)
    first, second = {"factor": 2.0}, {"factor": 3.0, "beta": 1.0}
    assert merger._tree({0: first, 1: first, 2: first}) == first
    assert merger._tree({0: first, 1: second, 2: first}) == SymbolicValue((first, second, first))
    assert merger._tree({0: first, 2: second}) == SymbolicValue((first, MISSING, second))


def test_what_only_some_layers_compute_is_a_branch() -> None:
    lines = classes_of("smollm3", pad_token_id=0, num_hidden_layers=4)["SmolLM3Attention"]
    start = lines.index("if self.config.no_rope_layers[self.layer_idx]:")
    assert lines[start + 1 : start + 4] == [
        "query_states = rotary_embedding(query_states, cos, sin)",
        "key_states = rotary_embedding(key_states, cos, sin)",
        "key_states, value_states = cache.update(self.layer_idx, key_states, value_states)",
    ]


def test_layers_that_take_different_tensors_are_one_loop() -> None:
    lines = classes_of("cohere2", num_hidden_layers=4, pad_token_id=0)["Cohere2Model"]
    assert "for layer, layer_type in zip(self.layers, self.config.layer_types, strict=True):" in lines


@pytest.mark.slow
def test_layers_of_which_some_keep_no_cache_are_one_loop() -> None:
    lines = classes_of("nemotron_h", pad_token_id=0, layers_block_type=["linear_attention", "mlp", "full_attention"])
    assert any(line.startswith("for layer in self.layers") for line in lines["NemotronHModel"])


def test_layers_that_share_a_cache_ask_for_it() -> None:
    """Of six layers the last three; those before them are of both types."""
    kinds = ["sliding_attention", "full_attention"] * 3
    lines = classes_of("gemma4_text", num_hidden_layers=6, layer_types=kinds, num_kv_shared_layers=3)
    attention = lines["Gemma4TextAttention"]
    assert "self.is_kv_shared_layer = layer_idx >= config.num_hidden_layers - config.num_kv_shared_layers" in attention
    assert "key_states, value_states = cache.update(self.layer_idx, key_states, value_states)" in attention
    assert "key_states, value_states = cache.shared(self.layer_idx, self.config.layer_types)" in attention
    assert any(line.startswith("for layer_idx, (layer, layer_type) in enumerate(") for line in lines["Gemma4TextModel"])


def test_what_neither_side_of_a_branch_has_is_left_out() -> None:
    """Layers with a cache of their own project values, or take the keys; those without one have neither."""
    kinds = ["sliding_attention", "full_attention"] * 3
    values = {"num_hidden_layers": 6, "layer_types": kinds, "num_kv_shared_layers": 3, "attention_k_eq_v": True}
    attention = classes_of("gemma4_text", **values)["Gemma4TextAttention"]
    taken = attention.index("value_states = key_states")
    assert attention[taken - 1].startswith("elif ")


@pytest.mark.slow
def test_one_of_several_computations_is_one_choice() -> None:
    lines = classes_of("nemotron_h", pad_token_id=0)["NemotronHBlock"]
    start = lines.index('if self.config.layers_block_type[self.layer_idx] == "linear_attention":')
    assert lines[start + 1 :] == [
        "hidden_states = self.mixer(hidden_states, cache)",
        'elif self.config.layers_block_type[self.layer_idx] == "moe":',
        "hidden_states = self.mixer(hidden_states)",
        'elif self.config.layers_block_type[self.layer_idx] == "full_attention":',
        "hidden_states = self.mixer(hidden_states, attention_mask, cache)",
        "else:",
        "hidden_states = self.mixer(hidden_states)",
        "return residual + hidden_states",
    ]


def test_a_sub_module_of_either_class_is_chosen_by_the_config() -> None:
    classes = classes_of(
        "dots1",
        num_hidden_layers=4,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=2,
        n_shared_experts=1,
        num_experts_per_tok=2,
        routed_scaling_factor=1.5,
        norm_topk_prob=True,
    )
    assert any(line.startswith("self.mlp = Dots1MLP(config) if layer_idx") for line in classes["Dots1DecoderLayer"])
    shared = "self.shared_experts = Dots1MLP(config, intermediate_size="
    assert any(line.startswith(shared) for line in classes["Dots1MoE"])
    assert "def __init__(self, config: Config, intermediate_size: int | None = None) -> None:" in classes["Dots1MLP"]


def test_rope_parameters_by_layer_type_are_modules_by_name() -> None:
    model = classes_of("olmo3", num_hidden_layers=4)["Olmo3Model"]
    assert "for name, parameters in config.rope_parameters.items()" in model
    assert "cos, sin = position_embeddings[layer_type]" in model


def test_a_parameter_that_a_module_around_uses_is_in_its_own_class() -> None:
    classes = classes_of("gpt_neox_japanese", num_hidden_layers=4)
    assert "self.dense_bias = Parameter((config.hidden_size,))" in classes["GPTNeoXJapaneseAttention"]
    lines = classes["GPTNeoXJapaneseLayer"]
    start = lines.index("if self.layer_idx == self.config.num_hidden_layers - 1:")
    assert lines[start + 1] == "attn_output = attn_output + self.attention.dense_bias"


def test_parts_that_are_repeated_are_told_by_all_sizes() -> None:
    """One key head of two in one trace, three of six in another: `expand` would do for the first alone."""
    lines = classes_of("diffllama", traces=3, num_hidden_layers=4)["DiffLlamaAttention"]
    assert "value_states1 = chunk.repeat(1, 2, 1, 1)" in lines


def test_a_model_without_a_cache_is_given_one() -> None:
    lines = classes_of("openai-gpt", n_layer=4)["OpenAIGPTAttention"]
    start = lines.index("key, value = cache.update(self.layer_idx, key, value)")
    assert "query = query.view(" in lines[start - 3]
    assert any("mask=causal_mask(position_ids, cache)," in line for line in lines[start:])
