"""Attention, its masks, rotary embedding, and the choice of the tokens whose logits are wanted.

Shapes: B batch, L new tokens, S slots of the cache, N query heads, K key/value heads, H head size, F rotated
frequencies (half the rotated part of a head), E hidden size, T tokens whose logits are wanted, C chosen slots.
"""

from __future__ import annotations

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import require
from trtllm_port.layers.functional.cache import KVCache
from trtllm_port.layers.functional.explicit_attention import explicit_attention
from trtllm_port.layers.operations.creation import arange, full, full_like
from trtllm_port.layers.operations.indexing import gather_nd, scatter
from trtllm_port.layers.operations.shaping import concat, shape, squeeze, transpose, unsqueeze
from trtllm_port.layers.operations.slicing import select

SIZE_MULTIPLE = 8
FUSED_HEAD_SIZES = range(16, 257, SIZE_MULTIPLE)
FUSED_QUERY_HEADS = 4


def needs_decomposition(dtype: str, query_heads: int, head_size: int) -> bool:
    """Whether no fused attention kernel exists, so that TensorRT must be allowed to use several kernels.

    The rule is what tensorrt_rtx 1.7.1 answered for compute capabilities 7.5 to 12.1 and the two profiles of an engine:
    fused kernels exist in float16 and bfloat16, for head sizes from 16 to 256 that are multiples of 8. For a single new
    token there must be four query heads or more, of this rank; how many key/value heads they share makes no difference.
    Elsewhere a build that demands one fails.
    """
    return dtype not in ("float16", "bfloat16") or query_heads < FUSED_QUERY_HEADS or head_size not in FUSED_HEAD_SIZES


def attention(
    query_BNLH: Tensor,
    key_BKSH: Tensor,
    value_BKSH: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Operand | None = None,
) -> Tensor:
    """softmax(scale * query keyᵀ, masked) value, by TensorRT's attention layer where that has all that is asked for.

    Args:
        query_BNLH: queries; N is a multiple of K, each key head serves N / K neighbouring query heads. Of float32 in a
            16-bit network, single operations compute it; so they do where a loop is between it and the first one.
        key_BKSH, value_BKSH: keys and values of all slots; values may have another H.
        mask: [B or 1, N or 1, L, S]; bool: True may attend; or of the query's data type: added to the scores.
        scale: None: H ** -0.5. The layer has no scale, so queries are multiplied by it.
        softcap: scores become softcap * tanh(scores / softcap); the layer has none, so single operations do it.
        sinks: [N], a score of each head that takes its share of the attention and has no value; as for softcap.

    Returns:
        [B, L, N, H] (H of the values), heads behind tokens as HF's attention functions return it.
    """
    network = query_BNLH.network
    require(query_BNLH, FLOAT_DTYPES, "attention")
    if len({query_BNLH.dtype, key_BKSH.dtype, value_BKSH.dtype}) > 1:
        raise NetworkError(f"{network.where()}`attention` of {query_BNLH.dtype}, {key_BKSH.dtype}, {value_BKSH.dtype}")
    head_size = query_BNLH.shape[-1]
    scale = head_size**-0.5 if scale is None else scale
    wider = query_BNLH.dtype == "float32" != network.dtype  # TensorRT-RTX 1.7.1's compiler crashes on its layer there
    # nor does it find kernels for two of them with a loop in between, whether they may be decomposed or not
    apart = network.loops_before_attention not in (None, network.loops)
    network.attention_apart |= apart
    if softcap is not None or sinks is not None or wider or apart or not network.attention_layers:
        return explicit_attention(query_BNLH, key_BKSH, value_BKSH, mask, scale, softcap, sinks)
    network.loops_before_attention = network.loops
    if scale != 1.0:
        query_BNLH = query_BNLH * scale
    value_size = value_BKSH.shape[-1]
    head_size = max(head_size, value_size)  # the layer has one size for all: zeros change neither scores nor values
    if query_BNLH.dtype != "float32":  # no kernels for other sizes in 16 bits, whether they may be decomposed or not
        head_size = -(-head_size // SIZE_MULTIPLE) * SIZE_MULTIPLE
    query_BNLH, key_BKSH, value_BKSH = (_padded(x, head_size) for x in (query_BNLH, key_BKSH, value_BKSH))
    trt = network.trt
    layer = network.definition.add_attention_v2(
        *(t.itensor for t in (query_BNLH, key_BKSH, value_BKSH)),
        trt.AttentionNormalizationOp.SOFTMAX,
        trt.CausalMaskKind.NONE,
    )
    if layer is not None:
        layer.decomposable = needs_decomposition(query_BNLH.dtype, query_BNLH.shape[1], head_size)
        if mask is not None:
            layer.mask = mask.itensor
    output_BLNH = transpose(network.add("attention", layer), 1, 2)
    return output_BLNH if value_size == head_size else output_BLNH[..., :value_size]


def _padded(x: Tensor, size: int) -> Tensor:
    """x with zeros behind its last dimension's elements, up to `size`."""
    missing = size - x.shape[-1]
    if not missing:
        return x
    sizes = [static if static >= 0 else shape(x, dim) for dim, static in enumerate(x.shape[:-1])]
    return concat([x, full([*sizes, missing], 0.0, like=x)], -1)


def causal_mask(position_ids: Tensor, cache: KVCache, *, window: int | None = None) -> Tensor:
    """Which slots of the cache a token may attend to: those of its own and of earlier positions.

    Slots are positions, so a slot that holds padding lies behind every real token that asks. Computed once for equal
    arguments, so that all layers share it.

    Args:
        position_ids: [B, L], int64.
        cache: the cache whose slots are meant.
        window: None, or the number of latest positions that are visible, the token's own included.

    Returns:
        bool [B, 1, L, S].
    """

    def make() -> Tensor:
        position_B1L1 = unsqueeze(unsqueeze(position_ids, 1), 3)
        slot_111S = _slots(position_ids, cache)
        mask = slot_111S <= position_B1L1
        return mask if window is None else mask & (slot_111S > position_B1L1 - window)

    return position_ids.network.shared(("causal_mask", position_ids.name, cache.max_seq_len, window), make)


def chunked_causal_mask(position_ids: Tensor, cache: KVCache, *, chunk: int) -> Tensor:
    """As `causal_mask`, but a token sees only its own chunk: positions with the same quotient by `chunk`.

    Returns:
        bool [B, 1, L, S].
    """

    def make() -> Tensor:
        position_B1L1 = unsqueeze(unsqueeze(position_ids, 1), 3)
        slot_111S = _slots(position_ids, cache)
        return (slot_111S <= position_B1L1) & (slot_111S >= position_B1L1 // chunk * chunk)

    return position_ids.network.shared(("chunked_mask", position_ids.name, cache.max_seq_len, chunk), make)


def _slots(position_ids: Tensor, cache: KVCache) -> Tensor:
    network = position_ids.network
    return network.operand(arange(cache.max_seq_len, like=position_ids, dtype=position_ids.dtype), "int64", 4)


def slot_distances(position_ids: Tensor, cache: KVCache) -> Tensor:
    """How far every slot of the cache lies before a token; negative behind it.

    Args:
        position_ids: [B, L], int64.
        cache: the cache whose slots are meant.

    Returns:
        int64 [B, L, S].
    """

    def make() -> Tensor:
        return unsqueeze(position_ids, 2) - squeeze(_slots(position_ids, cache), 0)

    return position_ids.network.shared(("slot_distances", position_ids.name, cache.max_seq_len), make)


def only_chosen(mask_B1LS: Tensor, indices_BLC: Tensor) -> Tensor:
    """A mask without the slots that a token did not choose: sparse attention.

    Args:
        mask_B1LS: bool, True may attend.
        indices_BLC: int64 or int32, the C slots that each token chose; the mask may hide some of them.
    """
    nothing_BLS = full_like(select(mask_B1LS, 1, 0), 0.0, dtype="float32")
    chosen_BLS = scatter(nothing_BLS, 2, indices_BLC, 1.0) > 0.5
    return mask_B1LS & unsqueeze(chosen_BLS, 1)


def rotary_embedding(
    x_BNLH: Tensor, cos_BLF: Tensor, sin_BLF: Tensor, *, interleaved: bool = False, tokens_first: bool = False
) -> Tensor:
    """Rotate pairs of a head's first 2F elements by the angles of the token's position; the rest passes.

    Args:
        x_BNLH: queries or keys.
        cos_BLF, sin_BLF: of x's data type.
        interleaved: pairs are neighbours (2i, 2i + 1) instead of halves (i, i + F).
        tokens_first: x, and what is returned, are [B, L, N, H].
    """
    if tokens_first:
        turned = rotary_embedding(transpose(x_BNLH, 1, 2), cos_BLF, sin_BLF, interleaved=interleaved)
        return transpose(turned, 1, 2)
    network = x_BNLH.network
    rotated = 2 * cos_BLF.shape[-1]
    if len({x_BNLH.dtype, cos_BLF.dtype, sin_BLF.dtype}) > 1 or rotated > x_BNLH.shape[-1]:
        raise NetworkError(f"{network.where()}`rotary_embedding` of {x_BNLH} by {cos_BLF} and {sin_BLF}")
    layer = network.definition.add_rotary_embedding(
        x_BNLH.itensor, cos_BLF.itensor, sin_BLF.itensor, interleaved, rotated
    )
    return network.add("rotary_embedding", layer)


def gather_tokens(hidden_BLE: Tensor, logits_indices_BT: Tensor) -> Tensor:
    """The hidden states of some tokens of each row.

    Args:
        hidden_BLE: all tokens' hidden states.
        logits_indices_BT: positions within L.

    Returns:
        [B, T, E].
    """
    return gather_nd(hidden_BLE, unsqueeze(logits_indices_BT, 2), batch_dims=1)
