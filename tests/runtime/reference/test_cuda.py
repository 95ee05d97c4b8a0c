"""The same networks on a GPU: weights moved once, caches updated where they are, results like the CPU's."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from torch.testing import assert_close

from trtllm_port.errors import EngineError
from trtllm_port.runtime.reference import ReferenceExecutor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


def _decoder_step(net: Any) -> Any:
    """Cache update, mask from positions (one query sees nothing), grouped attention, linear layer, loop, top-k."""
    add = net.definition
    query, key = torch.randn(2, 4, 3, 16), torch.randn(2, 2, 3, 16)
    cache = add.add_kv_cache_update(
        net.input(torch.zeros(2, 2, 8, 16)),
        net.input(key),
        net.input(torch.tensor([0, 4], dtype=torch.int32)),
        trt.KVCacheMode.LINEAR,
    ).get_output(0)
    positions = torch.tensor([[0, 1, 2], [4, 5, -1]]).reshape(2, 1, 3, 1)
    later = add.add_elementwise(
        net.constant(torch.arange(8).reshape(1, 1, 1, 8)), net.input(positions), trt.ElementWiseOperation.GREATER
    )
    attention = add.add_attention_v2(
        net.input(query), cache, cache, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
    )
    attention.decomposable = True
    attention.mask = add.add_unary(later.get_output(0), trt.UnaryOperation.NOT).get_output(0)
    weight = net.constant(torch.randn(1, 1, 5, 16))
    kinds = (trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE)
    linear = add.add_matrix_multiply(attention.get_output(0), kinds[0], weight, kinds[1]).get_output(0)
    best = add.add_topk(linear, trt.TopKOperation.MAX, 2, 1 << 3, trt.int64)
    return cache, linear, best.get_output(1)


def test_a_decoder_step_is_that_of_the_cpu(net: Any) -> None:
    file = net.file(*_decoder_step(net))
    expected = ReferenceExecutor(file, {}).run({name: value.clone() for name, value in net.feeds.items()})
    executor = ReferenceExecutor(file, {}, device="cuda", check=True)
    assert torch.cuda.get_device_name() in executor.name
    feeds = {name: value.cuda() for name, value in net.feeds.items()}
    results = executor.run(feeds)
    for name, value in expected.items():
        assert results[name].is_cuda
        assert_close(results[name].cpu(), value, rtol=1e-4, atol=1e-5)
    assert results["y0"].data_ptr() == feeds["x0"].data_ptr()


def test_inputs_are_moved_but_a_cache_must_be_there(net: Any) -> None:
    file = net.file(*_decoder_step(net))
    executor = ReferenceExecutor(file, {}, device="cuda")
    executor.run({name: value.cuda() if name == "x0" else value for name, value in net.feeds.items()})
    with pytest.raises(EngineError, match="the cache 'x0' is on cpu"):
        executor.run(net.feeds)
