"""Which sizes of a config are tried as equal when the model does not take them apart."""

from __future__ import annotations

from trtllm_port.codegen.configs.resizing import Plan, equal_keys, resize, sums


def test_head_counts_and_head_sizes() -> None:
    values = {
        "hidden_size": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
    }
    heads, sizes = equal_keys(values)
    assert heads == (("num_key_value_heads", "num_attention_heads"),)
    assert sizes == (("head_dim", "qk_rope_head_dim"),)


def test_grouped_heads_stay_grouped() -> None:
    assert equal_keys({"num_attention_heads": 8, "num_key_value_heads": 2}) == ((), ())


def test_what_is_equal_in_every_layer_stays_so() -> None:
    values = {"num_attention_heads": [16, 8], "num_key_value_heads": [16, 8], "index_n_heads": 4}
    assert equal_keys(values) == ((("num_key_value_heads", "num_attention_heads"),), ())


def test_a_head_size_that_is_a_sum_in_some_layers_stays_so_there() -> None:
    values = {"head_dim": [64, 96], "qk_nope_head_dim": [24, 64], "qk_rope_head_dim": 32, "v_head_dim": 16}
    assert sums(values) == (("head_dim", "qk_nope_head_dim + qk_rope_head_dim"),)
    plan = Plan(equal=sums(values))
    resized = resize(object(), values, plan, 1)
    parts = [size + resized["qk_rope_head_dim"] for size in resized["qk_nope_head_dim"]]
    assert resized["head_dim"][1] == parts[1]
    assert resized["head_dim"][0] == resize(object(), values, Plan(), 1)["head_dim"][0] != parts[0]
    assert plan.describe() == {"head_dim": "kept equal to `qk_nope_head_dim + qk_rope_head_dim`"}


def test_one_size_for_all_layers_may_be_the_sum_of_what_some_have() -> None:
    values = {"head_dim": 96, "qk_nope_head_dim": [24, 64], "qk_rope_head_dim": 32}
    resized = resize(object(), values, Plan(equal=sums(values)), 2)
    assert resized["head_dim"] == resized["qk_nope_head_dim"][1] + resized["qk_rope_head_dim"]
