"""Linear layers against torch and transformers, whole and cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as nn
from transformers.pytorch_utils import Conv1D as HFConv1D

from trtllm_port.errors import ConfigError
from trtllm_port.layers import ColumnLinear, Conv1D, Embedding, Linear, Mapping, RowLinear

X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))


def random(module: Any) -> dict[str, torch.Tensor]:
    return {name: torch.randn(parameter.shape) for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("layer", [Linear, ColumnLinear, RowLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_whole_layers_are_torchs(evaluate: Any, layer: Any, bias: bool) -> None:
    module = layer(6, 4, bias)
    weights = random(module)
    found = evaluate.module(module, weights, X)
    torch.testing.assert_close(found, nn.linear(X, weights["weight"], weights.get("bias")))


def test_parameters_keep_a_data_type_of_their_own() -> None:
    module = Linear(6, 4, dtype="float32")
    assert [parameter.dtype for _, parameter in module.named_parameters()] == ["float32", "float32"]


def test_conv1d_is_transformers(evaluate: Any) -> None:
    theirs = HFConv1D(4, 6)
    weights = {name: value.detach() for name, value in theirs.named_parameters()}
    found = evaluate.module(Conv1D(4, 6), weights, X)
    torch.testing.assert_close(found, theirs(X).detach())


def test_embedding_is_torchs(evaluate: Any) -> None:
    ids, module = torch.tensor([[3, 0, 8]]), Embedding(9, 4)
    weights = random(module)
    torch.testing.assert_close(evaluate.module(module, weights, ids), nn.embedding(ids, weights["weight"]))


def test_two_ranks_parts_make_the_whole(evaluate: Any) -> None:
    """What each rank computes before it talks to the other, put together by hand."""
    weight, bias = torch.randn(4, 6), torch.randn(4)
    columns, rows = [], []
    for rank in range(2):
        mapping = Mapping(tp_size=2, rank=rank)
        column, row = ColumnLinear(6, 4, mapping=mapping), RowLinear(6, 4, bias=False, mapping=mapping)
        assert column.weight.full_shape == row.weight.full_shape == (4, 6)
        cut = {"weight": weight[rank * 2 : rank * 2 + 2], "bias": bias[rank * 2 : rank * 2 + 2]}
        columns.append(evaluate.module(column, cut, X))
        part = evaluate(
            lambda x, w: x @ w.transpose(0, 1), X[..., rank * 3 : rank * 3 + 3], weight[:, rank * 3 : rank * 3 + 3]
        )
        assert row.weight.shape == (4, 3)
        rows.append(part)
    torch.testing.assert_close(torch.cat(columns, -1), nn.linear(X, weight, bias))
    torch.testing.assert_close(rows[0] + rows[1], nn.linear(X, weight))


def test_the_ranks_reduce_once_and_then_add_the_bias(evaluate: Any) -> None:
    module = RowLinear(6, 4, mapping=Mapping(tp_size=2))
    network = evaluate.define(module, (X[..., :3],), module=module, weights=random(module))
    layers = [network.definition.get_layer(i).name for i in range(network.definition.num_layers)]
    names = [name for name in layers if "constant" not in name]
    assert names == ["matmul", "all_reduce", "broadcast", "add"] or names == ["matmul", "all_reduce", "add"]


def test_a_size_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="out_features is 5, which tp_size 2 does not divide"):
        ColumnLinear(6, 5, mapping=Mapping(tp_size=2))
    with pytest.raises(ConfigError, match="rank is 2, expected 0 to 1"):
        Mapping(tp_size=2, rank=2)
    assert Mapping(tp_size=2, pp_size=2, rank=3).tp_group == [2, 3]
