"""ATTENTION_INPUT, ATTENTION_OUTPUT, ROTARY_EMBEDDING, KV_CACHE_UPDATE.

Shapes: B batch, N query heads, K key/value heads, L query tokens, S cached tokens (slots), H head size,
P table rows, F = rotated size / 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Bound, Evaluator, Layer

MASK, QUANTIZATION_SCALE, QUERY_LENGTHS, KEY_VALUE_LENGTHS = 3, 4, 5, 6  # inputs after query, key and value


class Visible(NamedTuple):
    """What a mask lets the queries see: the first `columns` keys, among them those of `mask` (None: all).

    `causal` says that `mask` is the square lower triangle, so that it need not be looked at. `blind` marks the queries
    that see nothing [..., L, 1], if there are any.
    """

    columns: int
    mask: Tensor | None
    causal: bool = False
    blind: Tensor | None = None


def attention_input(layer: Layer) -> Evaluator | Bound:
    """softmax(Q Kᵀ + mask) V: no scale. Query heads share the key/value heads in equal groups, in order.

    A bool mask lets attend where True; another is added. Keys that no query may attend contribute exactly nothing and
    are cut off. A query that may attend to nothing gets zeros, as in ONNX's Attention.
    """
    _refuse_unusual(layer)
    if layer.has(KEY_VALUE_LENGTHS) and layer["causal_kind"] == "LOWER_RIGHT":
        layer.refuse("key/value lengths and the causal kind LOWER_RIGHT together, which TensorRT does not define")
    grouped = layer.input(0).shape[1] != layer.input(1).shape[1]
    kind = layer["causal_kind"]
    if layer.has(KEY_VALUE_LENGTHS):

        def general(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: Tensor) -> Tensor:
            allowed = torch.arange(k.shape[2], device=k.device) < lengths.reshape(-1, 1, 1, 1)
            if kind == "UPPER_LEFT":
                allowed = allowed & _triangle(q, k, 0)
            if mask is not None and mask.dtype != torch.bool:
                return _attend(q, k, v, Visible(k.shape[2], mask.masked_fill(~allowed, -torch.inf)), grouped)
            return _attend(q, k, v, visible(allowed if mask is None else allowed & mask), grouped)

        return Bound(general, tuple(layer.slot(i) for i in (0, 1, 2, MASK, KEY_VALUE_LENGTHS)))
    if layer.has(MASK):
        if layer.input(MASK).dtype == "bool":
            seen = layer.derive(layer.slot(MASK), visible)
            return Bound(lambda q, k, v, s: _attend(q, k, v, s, grouped), (*_query_key_value(layer), seen))
        return Bound(
            lambda q, k, v, m: _attend(q, k, v, Visible(k.shape[2], m), grouped),
            (*_query_key_value(layer), layer.slot(MASK)),
        )
    return Bound(lambda q, k, v: _attend(q, k, v, _causal(q, k, kind), grouped), _query_key_value(layer))


def _refuse_unusual(layer: Layer) -> None:
    if layer["norm_op"] != "SOFTMAX":
        layer.refuse(f"norm_op {layer['norm_op']}")
    for form in ("query_form", "key_value_form"):
        if layer[form] != "PADDED_BHND":
            layer.refuse(f"{form} {layer[form]}")
    if layer["causal_kind"] not in ("NONE", "UPPER_LEFT", "LOWER_RIGHT"):
        layer.refuse(f"causal_kind {layer['causal_kind']}")
    if layer.has(MASK) and layer["causal_kind"] != "NONE":
        layer.refuse("a mask and a causal kind together")
    if layer.has(QUANTIZATION_SCALE):
        layer.refuse("quantized normalization")


def _query_key_value(layer: Layer) -> tuple[int, int, int]:
    return layer.slot(0), layer.slot(1), layer.slot(2)


def visible(mask: Tensor) -> Visible:
    """What a bool mask [..., L, S] lets the queries see; computed once for all layers that share the mask."""
    used = mask.reshape(-1, mask.shape[-1]).any(0).nonzero()
    columns = int(used[-1]) + 1 if len(used) else 1
    mask = mask[..., :columns]
    if bool(mask.all()):
        return Visible(columns, None)
    square = mask.shape[-2] == columns
    if square and bool((mask == torch.ones_like(mask[(0,) * (mask.dim() - 2)]).tril()).all()):
        return Visible(columns, None, causal=True)
    blind = ~mask.any(-1, keepdim=True)
    return Visible(columns, mask, blind=blind if bool(blind.any()) else None)


def _causal(q: Tensor, k: Tensor, kind: str) -> Visible:
    """UPPER_LEFT lets query i see the keys j ≤ i; LOWER_RIGHT j ≤ i + S - L."""
    length, slots = q.shape[2], k.shape[2]
    if kind == "NONE" or (kind == "LOWER_RIGHT" and length == 1):
        return Visible(slots, None)
    if kind == "UPPER_LEFT" or length == slots:
        return Visible(slots, None, causal=True)
    return visible(_triangle(q, k, slots - length))


def _triangle(q: Tensor, k: Tensor, diagonal: int) -> Tensor:
    return torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(diagonal)


def _attend(q_BNLH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, seen: Visible, grouped: bool) -> Tensor:
    k, v = k_BKSH[:, :, : seen.columns], v_BKSH[:, :, : seen.columns]
    mask, causal = seen.mask, seen.causal
    if grouped and q_BNLH.shape[2] == 1 and not causal and (mask is None or mask.shape[1] == 1):
        # One query token: the heads that share keys can stand in its place, and no key is repeated.
        rows = q_BNLH.reshape(q_BNLH.shape[0], k.shape[1], -1, q_BNLH.shape[3])
        result = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=1.0).reshape(q_BNLH.shape)
    else:
        result = F.scaled_dot_product_attention(
            q_BNLH, k, v, attn_mask=mask, is_causal=causal, scale=1.0, enable_gqa=grouped
        )
    return result if seen.blind is None else result.masked_fill(seen.blind, 0)


def attention_output(layer: Layer) -> Evaluator:
    """The end of an attention: passes its input on."""
    return lambda x: x


def rotary_embedding(layer: Layer) -> Evaluator | Bound:
    """Rotates pairs (a, b) of the head to (a cos - b sin, b cos + a sin).

    The pairs are the halves of the rotated part, or neighbours if `interleaved`. The rotated part is the head's first
    `rotary_embedding_dim` elements (0: twice the tables' size); the rest passes unchanged. Tables are [B, L, F], or
    [P, F] looked up by position ids [B, L] (input 3).
    """
    interleaved = layer["interleaved"]
    rotated = layer["rotary_embedding_dim"] or 2 * layer.input(1).shape[-1]

    def evaluate(x_BNLH: Tensor, cos: Tensor, sin: Tensor, positions_BL: Tensor | None = None) -> Tensor:
        if positions_BL is not None:
            cos, sin = F.embedding(positions_BL, cos), F.embedding(positions_BL, sin)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        part = x_BNLH[..., :rotated]
        a, b = (part[..., 0::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
        first, second = a * cos - b * sin, b * cos + a * sin
        turned = torch.stack((first, second), -1).flatten(-2) if interleaved else torch.cat((first, second), -1)
        return turned if rotated == x_BNLH.shape[-1] else torch.cat((turned, x_BNLH[..., rotated:]), -1)

    return evaluate


def kv_cache_update(layer: Layer) -> Bound:
    """`cache[b, :, w[b] + t] = update[b, :, t]`, in place: the output is the cache that was fed."""
    if layer["cache_mode"] != "LINEAR":
        layer.refuse(f"cache_mode {layer['cache_mode']}")
    if layer["update_form"] != "PADDED_BHND":
        layer.refuse(f"update_form {layer['update_form']}")
    starts = layer.derive(layer.slot(2), Tensor.tolist)
    return Bound(_write, (layer.slot(0), layer.slot(1), starts))


def _write(cache_BKSH: Tensor, update_BKLH: Tensor, starts: list[int]) -> Tensor:
    length, slots = update_BKLH.shape[2], cache_BKSH.shape[2]
    if min(starts) < 0 or max(starts) + length > slots:
        first = min(starts) if min(starts) < 0 else max(starts)
        raise IndexError(f"{length} tokens from slot {first} on do not fit the KV cache of {slots}")
    if len(set(starts)) == 1:
        cache_BKSH[:, :, starts[0] : starts[0] + length] = update_BKLH
        return cache_BKSH
    for row, start in enumerate(starts):
        cache_BKSH[row, :, start : start + length] = update_BKLH[row]
    return cache_BKSH
