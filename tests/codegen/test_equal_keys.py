"""Which sizes of a config are tried as equal when the model does not take them apart."""

from __future__ import annotations

from trtllm_port.codegen.resizing import equal_keys


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
