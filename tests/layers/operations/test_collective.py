"""Communication between ranks: TensorRT compiles it; one rank needs none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtllm_port import layers as L

PAIR = L.Mapping(tp_size=2, rank=1)


def test_one_rank_adds_no_layer(evaluate: Any) -> None:
    x = torch.randn(2, 3)
    assert torch.equal(evaluate(lambda t: L.all_gather(L.all_reduce(t, L.Mapping()), L.Mapping()), x), x)


def test_shapes_of_two_ranks(evaluate: Any) -> None:
    def both(t: L.Tensor) -> tuple[L.Tensor, L.Tensor]:
        reduced, gathered = L.all_reduce(t, PAIR), L.all_gather(t, PAIR)
        assert reduced.shape == (-1, -1, 4)
        assert gathered.shape == (-1, -1, 8)
        return reduced, gathered

    evaluate.define(both, (torch.zeros(2, 3, 4),))


@pytest.mark.slow
def test_tensorrt_compiles_them(evaluate: Any, compile_engine: Any) -> None:
    x = torch.zeros(2, 3, 4)
    network = evaluate.define(lambda t: L.all_gather(L.all_reduce(t, PAIR), PAIR), (x,))
    assert compile_engine(network, {"x0": tuple(x.shape)}) == []
