"""Attention layers with a recurrence between them, as hybrid models have them."""

from __future__ import annotations

import pytest

from trtllm_port.layers import KVCache, Network, attention, causal_mask, concat, linear_attention
from trtllm_port.runtime import NetworkFile

HEADS, KEY_HEADS, SIZE = 4, 2, 16


def network(kinds: str) -> Network:
    """Attention where there is an "a", a recurrence where there is an "r"."""
    made = Network(dtype="float16", max_seq_len=576, weights={})
    input_ids, position_ids = (
        made.add_input(name, "int64", (-1, -1), ("batch_size", "length")) for name in ("input_ids", "position_ids")
    )
    cache = KVCache(made, position_ids, 576)
    x = concat([input_ids.to("float16").unsqueeze(-1)] * (HEADS * SIZE), dim=-1)
    for layer, kind in enumerate(kinds):
        heads = (x * 0.5).view(0, 0, HEADS, SIZE)
        if kind == "a":
            query = heads.transpose(1, 2)
            shared = x[..., : KEY_HEADS * SIZE].view(0, 0, KEY_HEADS, SIZE).transpose(1, 2)
            key, value = cache.update(layer, shared * 0.5, shared * 2.0)
            out = attention(query, key, value, mask=causal_mask(position_ids, cache))
        else:
            numbers = heads.float()
            decay = numbers.sum(-1) * -0.1
            state = cache.state(layer, "recurrent")
            out = linear_attention(numbers, numbers, numbers, state, log_decay=decay).to("float16")
        x = x + out.view(0, 0, -1)
    made.mark_output(x, "logits")
    cache.mark_outputs()
    return made


@pytest.mark.parametrize(("kinds", "layers"), [("aa", 2), ("raa", 2), ("ara", 1), ("raarar", 2)])
def test_attention_behind_a_recurrence_is_single_operations(kinds: str, layers: int) -> None:
    types = [layer.type for layer in NetworkFile.from_network(network(kinds)).layers]
    assert types.count("ATTENTION_INPUT") == layers
