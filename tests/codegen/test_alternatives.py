"""Other values for the keys of a config."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from trtllm_port.codegen.configs.alternatives import alternatives, entries, is_name, ropes, threshold, with_entry

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}


def test_names_are_those_that_the_source_knows() -> None:
    config = transformers.GraniteMoeHybridConfig()
    assert alternatives("position_embedding_type", "nope", config) == ["rope"]
    config = transformers.DeepseekV2Config()
    assert alternatives("topk_method", "greedy", config) == ["group_limited_greedy"]


def test_no_name_is_invented() -> None:
    assert alternatives("topk_method", "noaux_tc", transformers.DeepseekV3Config()) == []


def test_activations_are_no_such_names() -> None:
    assert not is_name("silu")
    assert is_name("rope")
    assert alternatives("hidden_act", "silu", transformers.LlamaConfig()) == ["relu", "gelu"]


def test_rotary_bases_are_tried_far_apart() -> None:
    config = transformers.LlamaConfig()
    assert alternatives("rope_theta", 10000, config)[0] == 20000
    assert alternatives("hidden_size", 64, config)[0] == 65


def test_a_number_of_tokens_is_tried_with_few() -> None:
    assert threshold(2048) == [5]
    assert threshold(8) == threshold(2048.0) == threshold(True) == []


def test_rotary_parameters_of_each_other_type() -> None:
    found = ropes({**YARN, "mrope_section": [2, 3]})
    assert sorted(found) == ["default", "dynamic", "linear", "llama3"]
    assert found["linear"] == {"rope_type": "linear", "rope_theta": 1e4, "mrope_section": [2, 3], "factor": 4.0}
    assert ropes({"name": "silu"}) == {}


def test_rotary_parameters_by_the_type_of_a_layer_change_in_all_of_them() -> None:
    both: dict[str, Any] = {
        "full_attention": dict(YARN),
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert {kind: {part["rope_type"] for part in found.values()} for kind, found in ropes(both).items()} == {
        kind: {kind} for kind in ("default", "linear", "dynamic", "yarn", "llama3")
    }


def test_entries_are_those_that_are_there_and_those_that_the_code_asks_for() -> None:
    found = entries("rope_parameters", YARN, transformers.DeepseekV3Config())
    assert found == ["factor", "original_max_position_embeddings", "mscale_all_dim"]
    assert "mscale_all_dim" not in entries("rope_parameters", YARN, transformers.LlamaConfig())


@pytest.mark.parametrize(("name", "others"), [("mscale_all_dim", [0.7, 3]), ("factor", [6.0])])
def test_one_entry_differs(name: str, others: list[float]) -> None:
    found = with_entry(YARN, name, transformers.DeepseekV3Config())
    assert found == [{**YARN, name: other} for other in others]
