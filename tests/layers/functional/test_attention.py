"""Attention, masks and rotary embedding against torch and transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as nn
from hypothesis import given, settings
from transformers.masking_utils import chunked_causal_mask_function, sliding_window_causal_mask_function
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as capped
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as with_sinks
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_neighbours
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as rotate_halves

from trtllm_port import layers as L
from trtllm_port.errors import NetworkError

FEW = settings(max_examples=15, deadline=None)
SLOTS = 12


@FEW
@given(
    groups=st.integers(1, 3),
    key_heads=st.integers(1, 3),
    tokens=st.integers(1, 5),
    slots=st.integers(1, 7),
    scale=st.sampled_from([None, 1.0, 0.3]),
)
def test_attention_is_torchs(
    evaluate: Any, groups: int, key_heads: int, tokens: int, slots: int, scale: float | None
) -> None:
    """Grouped heads, any scale, a mask that leaves every token at least one slot."""
    query = torch.randn(2, groups * key_heads, tokens, 8)
    key, value = torch.randn(2, 2, key_heads, slots, 8)
    mask = torch.rand(2, 1, tokens, slots) > 0.5
    mask[..., 0] = True

    def ours(q: L.Tensor, k: L.Tensor, v: L.Tensor, m: L.Tensor) -> L.Tensor:
        return L.attention(q, k, v, mask=m > 0, scale=scale)

    found = evaluate(ours, query, key, value, mask.long(), dynamic=(0, 2))
    expected = nn.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_added_masks(evaluate: Any) -> None:
    query, key, value, bias = torch.randn(4, 2, 2, 3, 3)
    found = evaluate(lambda q, k, v, m: L.attention(q, k, v, mask=m), query, key, value, bias, dynamic=(0, 2))
    torch.testing.assert_close(
        found, nn.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
    )


@pytest.mark.parametrize(("key_size", "value_size"), [(8, 5), (5, 8)])
def test_values_of_another_size(evaluate: Any, key_size: int, value_size: int) -> None:
    query, key, value = torch.randn(2, 4, 3, key_size), torch.randn(2, 2, 6, key_size), torch.randn(2, 2, 6, value_size)
    found = evaluate(L.attention, query, key, value, dynamic=(0, 2))
    expected = nn.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_bool", [True, False])
def test_soft_caps_are_gemmas(evaluate: Any, dtype: str, is_bool: bool) -> None:
    query, key, value, mask = _heads(dtype)
    module = SimpleNamespace(num_key_value_groups=3, training=False)
    expected = capped(module, query, key, value, mask, scaling=0.5, softcap=3.0)[0]
    if is_bool:
        mask = mask == 0
    found = evaluate(
        lambda q, k, v: L.attention(q, k, v, mask=L.constant(mask, like=q), scale=0.5, softcap=3.0),
        *(query, key, value),
        dynamic=(0, 2),
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sinks_are_those_of_gpt_oss(evaluate: Any, dtype: str) -> None:
    query, key, value, mask = _heads(dtype)
    sinks = torch.linspace(-1, 9, 6).to(query.dtype)
    module = SimpleNamespace(num_key_value_groups=3, training=False, sinks=sinks)
    expected = with_sinks(module, query, key, value, mask, scaling=0.5)[0]
    found = evaluate(
        lambda q, k, v, s: L.attention(q, k, v, mask=L.constant(mask, like=q), scale=0.5, sinks=s),
        *(query, key, value, sinks),
        dynamic=(),
    )
    torch.testing.assert_close(found, expected)


def _heads(dtype: str) -> tuple[torch.Tensor, ...]:
    """Queries of 6 heads, keys and values of 2, and a mask to add."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 6, 5, 8), (2, 2, 7, 8), (2, 2, 7, 4))
    query, key, value = (torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in shapes)
    allowed = torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None]
    return query, key, value, torch.zeros(1, 1, 5, 7).masked_fill(~allowed, float("-inf")).to(query.dtype)


def test_attention_of_two_data_types_is_refused(evaluate: Any) -> None:
    x = torch.randn(1, 1, 2, 16)
    with pytest.raises(NetworkError, match="`attention` of float32, float16, float16"):
        evaluate(lambda q, k: L.attention(q, k, k), x, x.half())


@pytest.mark.parametrize(
    ("dtype", "query_heads", "head_size", "expected"),
    [
        ("float16", 4, 64, False),
        ("bfloat16", 5, 16, False),
        ("float16", 3, 64, True),
        ("float16", 8, 8, True),
        ("float16", 8, 20, True),
        ("float16", 8, 512, True),
        ("float32", 8, 64, True),
    ],
)
def test_where_no_fused_kernel_exists(dtype: str, query_heads: int, head_size: int, expected: bool) -> None:
    assert L.needs_decomposition(dtype, query_heads, head_size) is expected


@pytest.mark.parametrize("head_size", [4, 12, 20])
def test_head_sizes_in_16_bits_that_are_no_multiple_of_8(evaluate: Any, head_size: int) -> None:
    query, key, value = (torch.randn(2, heads, 6, head_size, dtype=torch.float16) for heads in (4, 2, 2))
    found = evaluate(L.attention, query, key, value, dynamic=(0, 2))
    expected = nn.scaled_dot_product_attention(query.float(), key.float(), value.float(), enable_gqa=True)
    torch.testing.assert_close(found.float(), expected.transpose(1, 2), rtol=1e-2, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("head_size", [8, 15, 16, 17, 256, 264, 512])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_compiler_agrees_about_fused_kernels(
    dtype: str, head_size: int, evaluate: Any, compile_engine: Any
) -> None:
    """What the rule lets decompose builds; and what it does not."""
    x = torch.randn(1, 4, 8, head_size).to(getattr(torch, dtype))
    network = evaluate.define(lambda q, k, v: L.attention(q, k, v), (x, x, x), dynamic=(0, 2))
    assert compile_engine(network, {f"x{i}": tuple(x.shape) for i in range(3)}) == []


def masks(evaluate: Any, positions: torch.Tensor, **kind: int) -> torch.Tensor:
    function = L.chunked_causal_mask if "chunk" in kind else L.causal_mask
    cache: Any = SimpleNamespace(max_seq_len=SLOTS)
    found: torch.Tensor = evaluate(lambda p: function(p, cache, **kind), positions)
    return found


@FEW
@given(starts=st.lists(st.integers(0, 6), min_size=1, max_size=3), tokens=st.integers(1, 5), size=st.integers(1, 8))
def test_masks_are_transformers(evaluate: Any, starts: list[int], tokens: int, size: int) -> None:
    """Rows that begin at different positions; causal, with a window, in chunks."""
    positions = torch.tensor(starts)[:, None] + torch.arange(tokens)
    query, slot = positions[:, None, :, None], torch.arange(SLOTS)
    row = torch.zeros_like(query)
    assert torch.equal(masks(evaluate, positions), slot <= query)
    assert torch.equal(
        masks(evaluate, positions, window=size), sliding_window_causal_mask_function(size)(0, 0, query, slot)
    )
    chunked = chunked_causal_mask_function(size, torch.zeros(1, dtype=torch.int64))(row, row, query, slot)
    assert torch.equal(masks(evaluate, positions, chunk=size), chunked)


def test_slots_are_as_far_before_tokens_as_positions_say(evaluate: Any) -> None:
    positions, cache = torch.tensor([[0, 1, 2], [5, 6, 7]]), SimpleNamespace(max_seq_len=SLOTS)
    found = evaluate(lambda p: L.slot_distances(p, cache), positions)
    assert torch.equal(found, positions[..., None] - torch.arange(SLOTS))


def test_equal_masks_are_computed_once(evaluate: Any) -> None:
    cache: Any = SimpleNamespace(max_seq_len=SLOTS)

    def twice(p: L.Tensor) -> list[L.Tensor]:
        first, second = L.causal_mask(p, cache, window=4), L.causal_mask(p, cache, window=4)
        assert first is second
        assert L.causal_mask(p, cache, window=5) is not first
        return [first]

    evaluate.define(twice, (torch.zeros(1, 2, dtype=torch.int64),))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_only_chosen_slots_stay_in_a_mask(evaluate: Any, dtype: torch.dtype) -> None:
    mask = torch.ones(2, 1, 3, 6, dtype=torch.bool).tril(3)
    indices = torch.tensor([[[0, 1], [1, 5], [5, 4]], [[3, 2], [0, 0], [1, 2]]])
    found = evaluate(L.only_chosen, mask, indices.to(dtype), dynamic=(0, 2))
    chosen = torch.nn.functional.one_hot(indices, 6).sum(2) > 0
    assert torch.equal(found, mask & chosen[:, None])


@pytest.mark.parametrize("part", [8, 4])
def test_rotation_of_halves_is_llamas(evaluate: Any, part: int) -> None:
    """Of the whole head and, as in GPT-NeoX, of its first elements only."""
    x, angles = torch.randn(2, 3, 5, 8), torch.randn(2, 5, part // 2)
    found = evaluate(L.rotary_embedding, x, angles.cos(), angles.sin(), dynamic=(0,))
    wide = torch.cat([angles, angles], -1)
    rotated, _ = rotate_halves(x[..., :part], x[..., :part], wide.cos(), wide.sin())
    torch.testing.assert_close(found, torch.cat([rotated, x[..., part:]], -1))


def test_rotation_of_neighbours_is_gptjs(evaluate: Any) -> None:
    x, angles = torch.randn(2, 3, 5, 8), torch.randn(2, 5, 4)
    found = evaluate(
        lambda x, c, s: L.rotary_embedding(x, c, s, interleaved=True), x, angles.cos(), angles.sin(), dynamic=(0,)
    )
    expected = rotate_neighbours(x.transpose(1, 2), angles.sin(), angles.cos()).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_rotation_with_the_tokens_first_is_gptjs(evaluate: Any) -> None:
    x, angles = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 4)
    tables = angles.cos(), angles.sin()
    found = evaluate(
        lambda x, c, s: L.rotary_embedding(x, c, s, interleaved=True, tokens_first=True), x, *tables, dynamic=(0,)
    )
    torch.testing.assert_close(found, rotate_neighbours(x, *tables[::-1]))


def test_rotation_by_tables_of_another_type_is_refused(evaluate: Any) -> None:
    x, angles = torch.randn(2, 3, 5, 8).half(), torch.randn(2, 5, 4)
    with pytest.raises(NetworkError, match="rotary_embedding"):
        evaluate(L.rotary_embedding, x, angles, angles)
