"""Functions of modelling files are others for a while; which files are modelling files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from trtllm_port.huggingface.interception.modelling_code import is_modelling_file, replaced_functions

CONFIG = LlamaConfig(
    vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)


def test_functions_are_replaced_by_name_and_methods_by_themselves_until_the_end() -> None:
    model = LlamaForCausalLM(CONFIG)
    functions, methods = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaRMSNorm.extra_repr
    asked: list[Callable[..., Any]] = []

    def method(found: Callable[..., Any]) -> Callable[..., Any] | None:
        asked.append(found)
        return (lambda self: "ours") if found is methods else None

    with replaced_functions(model, lambda name, _: print if name == "apply_rotary_pos_emb" else None, method):
        assert modeling_llama.apply_rotary_pos_emb is print
        assert modeling_llama.LlamaRMSNorm.extra_repr(model.model.norm) == "ours"
    assert modeling_llama.apply_rotary_pos_emb is functions
    assert modeling_llama.LlamaRMSNorm.extra_repr is methods
    assert not {"__init__", "forward"} & {found.__name__ for found in asked}


def test_what_serves_all_models_is_no_modelling_file() -> None:
    assert is_modelling_file(modeling_llama.__file__)
    assert is_modelling_file("/cache/modules/transformers_modules/some/modeling_own.py")
    assert not is_modelling_file(transformers.modeling_utils.__file__)
    assert not is_modelling_file(transformers.masking_utils.__file__)
