"""The caches of a network: one per cache input, zeroed, in the network's data type."""

from __future__ import annotations

import pytest
import torch

from trtllm_port.runtime.network.executor import TensorSpec
from trtllm_port.runtime.network.kv_cache import allocate_cache, present_name


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_zeroed_cache_for_each_cache_input(dtype: str) -> None:
    inputs = [
        TensorSpec("input_ids", "int64", (-1, -1)),
        TensorSpec("past_key_values.0.key", dtype, (-1, 2, 16, 8)),
        TensorSpec("past_key_values.0.value", dtype, (-1, 2, 16, 4)),
    ]
    cache = allocate_cache(inputs, 3)
    assert {name: tuple(tensor.shape) for name, tensor in cache.items()} == {
        "past_key_values.0.key": (3, 2, 16, 8),
        "past_key_values.0.value": (3, 2, 16, 4),
    }
    for tensor in cache.values():
        assert tensor.dtype == getattr(torch, dtype)
        assert not tensor.any()
        tensor[:, :, 3:5] = 1.0
        assert tensor.sum() == 3 * 2 * 2 * tensor.shape[-1]


def test_an_output_is_named_after_the_cache_that_it_aliases() -> None:
    assert present_name("past_key_values.11.value") == "present_key_values.11.value"
