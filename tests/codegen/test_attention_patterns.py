"""Attention that a model writes out becomes one operation; what is not quite attention stays as it is written."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.recognise.attention_patterns import fuse_attention
from trtllm_port.codegen.record.attentions import compute_attention
from trtllm_port.codegen.record.recorder import Recorder

BATCH, HEADS, LENGTH, SIZE = 2, 3, 5, 4
SHOWN = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()[None, None]
LOWEST = torch.finfo(torch.float32).min


def plain(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = torch.matmul(query, key.transpose(-1, -2)) * 0.5
    return torch.matmul(functional.softmax(scores.masked_fill(~shown, LOWEST), dim=-1), value)


def divided(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = torch.where(shown, query @ key.transpose(2, 3) / 2.0, LOWEST)
    return functional.dropout(scores.softmax(-1), 0.1, training=False) @ value


def flat(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    rows = BATCH * HEADS
    bias = torch.where(shown, 0.0, LOWEST).expand(BATCH, 1, LENGTH, LENGTH)
    queries, keys = query.reshape(rows, LENGTH, SIZE), key.reshape(rows, LENGTH, SIZE).transpose(1, 2)
    scores = torch.bmm(queries, keys).mul(0.5).view(BATCH, HEADS, LENGTH, LENGTH) + bias
    weights = scores.softmax(-1).view(rows, LENGTH, LENGTH)
    return torch.bmm(weights, value.reshape(rows, LENGTH, SIZE)).view(BATCH, HEADS, LENGTH, SIZE)


def added_to_zeros(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    rows = BATCH * HEADS
    queries, keys = query.reshape(rows, LENGTH, SIZE), key.reshape(rows, LENGTH, SIZE).transpose(1, 2)
    zeros = torch.zeros(rows, LENGTH, LENGTH)
    scores = torch.baddbmm(zeros, queries, keys, beta=1.0, alpha=0.5).view(BATCH, HEADS, LENGTH, LENGTH)
    return scores.masked_fill(~shown, LOWEST).softmax(-1) @ value


def wide_scores(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) * 0.5
    weights = scores.masked_fill(~shown, LOWEST).softmax(-1).to(torch.bfloat16)
    return weights @ value.to(torch.bfloat16)


def cut_off(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    """To what half precision can hold, and once from below alone."""
    scores = query @ key.transpose(-1, -2) * 0.5 + torch.where(shown, 0.0, LOWEST)
    return scores.clip(-65504.0, 65504.0).clamp(min=LOWEST).softmax(-1) @ value


def capped(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)).clip(-1.0, 65504.0)
    return scores.masked_fill(~shown, LOWEST).softmax(-1) @ value


def capped_by_tensors(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)).clip(min=key.sum(-1, keepdim=True).transpose(-1, -2))
    return scores.masked_fill(~shown, LOWEST).softmax(-1) @ value


def squared(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) ** 2
    return scores.masked_fill(~shown, LOWEST).softmax(-1) @ value


def over_queries(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2)).masked_fill(~shown, LOWEST).softmax(-2) @ value


def weakly_hidden(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2)).masked_fill(~shown, -2.0).softmax(-1) @ value


class Attention(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
        return self.function(query, key, value, shown)


def times_and_plus(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    """A table of ones and zeros both ways, as in the first GPT; keys whose axes are permuted at once."""
    table = torch.ones(8, 8).tril().view(1, 1, 8, 8)[:, :, :LENGTH, :LENGTH]
    keys = key.transpose(1, 2).permute(0, 2, 3, 1)
    scores = query @ keys / 2.0
    return (scores * table + -1e4 * (1 - table)).softmax(-1) @ value


def times_only(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) * torch.ones(LENGTH, LENGTH).tril()).softmax(-1) @ value


def joined(function: Callable[..., Tensor], *, keeps_cache: bool = True) -> tuple[list[Operation], tuple[Tensor, ...]]:
    """The operations that are left, and the inputs of the model."""
    torch.manual_seed(0)
    inputs = *(torch.randn(BATCH, HEADS, LENGTH, SIZE) for _ in range(3)), SHOWN
    layer = Attention(function)
    with Recorder(nn.ModuleDict({"layers": nn.ModuleList([nn.Identity(), layer])})) as recorder:
        layer(*inputs)
    assert recorder.root is not None
    sample = SimpleNamespace(batch=BATCH, length=LENGTH, past=0)
    trace: Any = SimpleNamespace(
        sample=sample, inputs={"cache": Value(torch.zeros(()))}, keeps_cache=keeps_cache, asked_for_masks=True
    )
    return [item for item in fuse_attention(recorder.root, trace) if isinstance(item, Operation)], inputs


@pytest.mark.parametrize("function", [plain, divided, flat, added_to_zeros, wide_scores, cut_off, times_and_plus])
def test_it_is_one_operation(function: Callable[..., Tensor]) -> None:
    body, (query, key, value, shown) = joined(function)
    found = next(item for item in body if item.name == "attention")
    pairs = zip(found.args, (query, key, value), strict=True)
    assert all(torch.allclose(item.tensor.float(), each, rtol=1e-2) for item, each in pairs)
    assert found.kwargs["scale"] == 0.5
    assert len({item.tensor.dtype for item in found.args}) == 1  # as TensorRT wants
    mask = found.kwargs["mask"]
    assert isinstance(mask, Value)
    tensors = (item.tensor.float() for item in found.args)
    given = compute_attention(*tensors, mask.tensor, 0.5).transpose(1, 2)
    expected = functional.scaled_dot_product_attention(query, key, value, shown, scale=0.5)
    assert torch.allclose(given, expected, atol=2e-2 if function is wide_scores else 1e-5)


@pytest.mark.parametrize("function", [squared, capped, capped_by_tensors, over_queries, weakly_hidden, times_only])
def test_what_is_something_else_stays(function: Callable[..., Tensor]) -> None:
    body, _ = joined(function)
    assert not [item for item in body if item.name == "attention"]
    assert [item for item in body if item.name == "softmax"]


def test_where_a_model_keeps_no_cache_the_ports_takes_keys_and_values() -> None:
    body, (_, key, value, _) = joined(times_and_plus, keeps_cache=False)
    attention = next(item for item in body if item.name == "attention")
    update = next(item for item in body if item.name == "cache_update")
    assert update.args[1] == 1
    assert [each.tensor.tolist() for each in update.args[2:]] == [key.tolist(), value.tolist()]
    assert attention.args[1:] == update.outputs
    assert not [item for item in joined(times_and_plus)[0] if item.name == "cache_update"]
