"""Attention, rotary embedding and KV cache against formulas in float64 and against transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from trtllm_port.runtime.reference import ReferenceExecutor, UnsupportedLayerError
from trtllm_port.runtime.reference.evaluators.attention import visible
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError

quick = settings(max_examples=25, deadline=None)
SOFTMAX, NONE = trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE


def _attention(net: Any, q: Any, k: Any, v: Any, mask: Any = None, lengths: Any = None, causal: Any = NONE) -> Any:
    layer = net.definition.add_attention_v2(q, k, v, SOFTMAX, causal)
    layer.decomposable = True
    if mask is not None:
        layer.mask = mask
    if lengths is not None:
        layer.key_value_lengths = lengths
    return layer.get_output(0)


def _expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """In float64 with one softmax; queries that see nothing get zeros."""
    groups = q.shape[1] // k.shape[1]
    k, v = (t.double().repeat_interleave(groups, 1) for t in (k, v))
    scores = (q.double() @ k.mT).masked_fill(~allowed, -torch.inf)
    return (scores.softmax(-1).nan_to_num() @ v).to(q.dtype)


def _qkv(batch: int, heads: int, groups: int, length: int, slots: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, heads * groups, length, 8), (batch, heads, slots, 8), (batch, heads, slots, 8))
    return [torch.randn(shape, generator=generator) for shape in shapes]


CASES = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))


@quick
@given(sizes=CASES, per_head=st.booleans(), density=st.sampled_from([0.0, 0.3, 0.8, 1.0]), seed=st.integers(0, 999))
def test_bool_mask(
    new_net: Callable[[], Any], sizes: tuple[int, ...], per_head: bool, density: float, seed: int
) -> None:
    batch, heads, groups, length, more = sizes
    q, k, v = _qkv(batch, heads, groups, length, length + more, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads * groups if per_head else 1, length, length + more)
    mask = torch.rand(shape, generator=generator) < density
    net = new_net()
    (result,) = net.run(_attention(net, *(net.input(t) for t in (q, k, v)), mask=net.input(mask)))
    assert_close(result, _expected(q, k, v, mask), rtol=1e-4, atol=1e-5)


@quick
@given(sizes=CASES, start=st.integers(0, 3), window=st.integers(1, 4))
def test_the_masks_of_decoders(new_net: Callable[[], Any], sizes: tuple[int, ...], start: int, window: int) -> None:
    """Slots up to the position, over a cache that is longer: causal, decode, and with a window."""
    batch, heads, groups, length, more = sizes
    slots = start + length + more
    q, k, v = _qkv(batch, heads, groups, length, slots)
    positions, places = torch.arange(start, start + length)[:, None], torch.arange(slots)
    for mask in (places <= positions, (places <= positions) & (places > positions - window)):
        mask = mask.expand(batch, 1, -1, -1).contiguous()
        net = new_net()
        (result,) = net.run(_attention(net, *(net.input(t) for t in (q, k, v)), mask=net.input(mask)))
        assert_close(result, _expected(q, k, v, mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_float_mask_is_added(net: Any, dtype: torch.dtype) -> None:
    q, k, v = (t.to(dtype) for t in _qkv(2, 2, 2, 3, 5))
    mask = torch.randn(2, 1, 3, 5).to(dtype)
    (result,) = net.run(_attention(net, *(net.input(t) for t in (q, k, v)), mask=net.input(mask)))
    scores = q.double() @ k.double().repeat_interleave(2, 1).mT + mask.double()
    expected = scores.softmax(-1) @ v.double().repeat_interleave(2, 1)
    assert_close(result.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("length", "slots"), [(4, 4), (1, 6), (3, 6), (4, 2)])
@pytest.mark.parametrize("kind", ["UPPER_LEFT", "LOWER_RIGHT"])
def test_causal_kinds(net: Any, kind: str, length: int, slots: int) -> None:
    q, k, v = _qkv(2, 1, 2, length, slots)
    causal = getattr(trt.CausalMaskKind, kind)
    (result,) = net.run(_attention(net, *(net.input(t) for t in (q, k, v)), causal=causal))
    diagonal = 0 if kind == "UPPER_LEFT" else slots - length
    assert_close(result, _expected(q, k, v, torch.ones(length, slots, dtype=torch.bool).tril(diagonal)))


@pytest.mark.parametrize("kind", ["NONE", "UPPER_LEFT"])
@pytest.mark.parametrize("masked", ["", "bool", "float"])
def test_lengths(net: Any, kind: str, masked: str) -> None:
    q, k, v = _qkv(2, 2, 1, 3, 5)
    lengths = torch.tensor([2, 5], dtype=torch.int32)
    allowed = (torch.arange(5) < lengths[:, None, None, None]).expand(2, 1, 3, 5)
    given_mask = torch.rand(2, 1, 3, 5) < 0.7 if masked else None
    if masked and kind == "UPPER_LEFT":
        pytest.skip("TensorRT takes a mask or a causal kind")
    if given_mask is not None:
        allowed = allowed & given_mask
    if kind == "UPPER_LEFT":
        allowed = allowed & torch.ones(3, 5, dtype=torch.bool).tril()
    fed = given_mask
    if given_mask is not None and masked == "float":
        fed = torch.zeros(2, 1, 3, 5).masked_fill(~given_mask, -torch.inf)
    mask = None if fed is None else net.input(fed)
    inputs = [net.input(t) for t in (q, k, v)]
    (result,) = net.run(
        _attention(net, *inputs, mask=mask, lengths=net.input(lengths), causal=getattr(trt.CausalMaskKind, kind))
    )
    assert_close(result, _expected(q, k, v, allowed))


def test_what_tensorrt_does_not_define_is_refused(net: Any) -> None:
    inputs = [net.input(t) for t in _qkv(1, 1, 1, 2, 4)]
    lengths = net.input(torch.tensor([4], dtype=torch.int32))
    output = _attention(net, *inputs, lengths=lengths, causal=trt.CausalMaskKind.LOWER_RIGHT)
    with pytest.raises(UnsupportedLayerError, match=r"ATTENTION_INPUT .*LOWER_RIGHT"):
        net.run(output)


def test_a_mask_is_cut_to_what_it_shows() -> None:
    places, positions = torch.arange(8), torch.tensor([3, 4])[:, None]
    seen = visible((places <= positions)[None, None])
    assert seen.columns == 5
    assert seen.mask is not None
    assert seen.mask.shape == (1, 1, 2, 5)
    assert visible((places <= torch.tensor([[3]]))[None, None]) == (4, None, False, None)
    assert visible((places <= torch.arange(4)[:, None])[None, None]) == (4, None, True, None)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [8, 4])
@pytest.mark.parametrize("by_position", [False, True])
def test_rotary_embedding(net: Any, interleaved: bool, rotated: int, by_position: bool) -> None:
    x = torch.randn(2, 3, 5, 8)
    positions = torch.stack([torch.arange(5), torch.arange(7, 12)])
    table = torch.outer(torch.arange(12.0), 1 / 100 ** (torch.arange(rotated // 2) / 4))
    cos, sin = table.cos(), table.sin()
    tables = (cos, sin) if by_position else (cos[positions], sin[positions])
    inputs = [net.input(t) for t in (x, *tables)]
    layer = net.definition.add_rotary_embedding(*inputs, interleaved, rotated)
    if by_position:
        layer.set_input(3, net.input(positions))
    (result,) = net.run(layer.get_output(0))
    pairs = x[..., :rotated].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    axis = -1 if interleaved else -2
    turned = torch.complex(*pairs.unbind(axis)) * torch.polar(torch.ones(()), table[positions])[:, None]
    expected = torch.stack([turned.real, turned.imag], axis).flatten(-2)
    assert_close(result, torch.cat([expected, x[..., rotated:]], -1))


def test_rotary_embedding_is_that_of_transformers(net: Any) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = torch.randn(2, 3, 5, 8)
    angles = torch.randn(2, 5, 4)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    layer = net.definition.add_rotary_embedding(
        net.input(x), net.input(angles.cos()), net.input(angles.sin()), False, 0
    )
    (result,) = net.run(layer.get_output(0))
    assert_close(result, apply_rotary_pos_emb(x, x, cos, sin)[0])


def _cache_network(net: Any, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    cache, update = torch.zeros(2, 1, 6, 3), torch.randn(2, 1, length, 3)
    layer = net.definition.add_kv_cache_update(
        net.input(cache), net.input(update), net.input(torch.tensor(starts, dtype=torch.int32)), trt.KVCacheMode.LINEAR
    )
    net.output = layer.get_output(0)
    return cache, update


@pytest.mark.parametrize("starts", [[2, 2], [0, 3]])
def test_kv_cache_is_updated_in_place(net: Any, starts: list[int]) -> None:
    cache, update = _cache_network(net, starts, 3)
    (result,) = net.run(net.output)
    expected = torch.zeros(2, 1, 6, 3)
    for row, start in enumerate(starts):
        expected[row, :, start : start + 3] = update[row]
    assert result.data_ptr() == cache.data_ptr()
    assert_close(cache, expected)


def test_kv_cache_that_is_too_small(net: Any) -> None:
    cache, _ = _cache_network(net, [0, 4], 3)
    with pytest.raises(LayerExecutionError, match="3 tokens from slot 4 on do not fit the KV cache of 6"):
        net.run(net.output)
    assert not cache.any()


def test_a_cache_that_is_read_elsewhere_is_refused(net: Any) -> None:
    _cache_network(net, [0, 0], 2)
    copy = net.definition.add_identity(net.definition.get_input(0)).get_output(0)
    with pytest.raises(UnsupportedLayerError, match="read elsewhere"):
        ReferenceExecutor(net.file(net.output, copy), {})
