"""The KV cache of a network: what layers get that have no keys and values of their own."""

from __future__ import annotations

import pytest

from trtllm_port.errors import NetworkError
from trtllm_port.layers import KVCache, Network

KINDS = ("window", "full", "window", "full", "window")


@pytest.fixture
def cache() -> KVCache:
    network = Network(dtype="float32", max_seq_len=8, weights={})
    return KVCache(network, network.add_input("position_ids", "int64", (-1, -1), ("batch", "length")), 8)


def test_a_layer_without_keys_shares_the_last_ones_of_its_kind(cache: KVCache) -> None:
    given = {}
    for layer in range(3):
        new = (cache.network.add_input(f"{layer}.{part}", "float32", (-1, 2, -1, 4)) for part in ("key", "value"))
        given[layer] = cache.update(layer, *new)
    assert cache.shared(3, KINDS) is given[1]
    assert cache.shared(4, KINDS) is given[2]
    assert cache.shared(3) is given[2]


def test_a_part_of_the_cache_begins_at_another_layer(cache: KVCache) -> None:
    new = [cache.network.add_input(f"{layer}", "float32", (-1, 2, -1, 4)) for layer in range(2)]
    first, _ = cache.update(0, *new)
    part = cache.beginning_at(2)
    second, _ = part.beginning_at(1).update(1, *new)
    assert [first.name, second.name] == ["present_key_values.0.key", "present_key_values.4.key"]
    assert cache.shared(5)[0] is second, "what a part keeps the whole has, too"


def test_a_layer_that_finds_nothing_to_share_is_an_error(cache: KVCache) -> None:
    with pytest.raises(NetworkError, match="no layer before 3"):
        cache.shared(3, KINDS)
