"""Self-attention with a KV cache, with HF's names for its parts.

Shapes: B batch, L new tokens, E hidden size, N query heads, K key/value heads, H head size, F rotated frequencies,
S slots of the cache.
"""

from __future__ import annotations

from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.functional.attention import attention, rotary_embedding
from trtllm_port.layers.functional.cache import KVCache
from trtllm_port.layers.modules.linear import ColumnLinear, RowLinear, cut
from trtllm_port.layers.modules.module import Module


class Attention(Module):
    """Projections, rotary embedding, cache, attention, output projection: Llama's, and many others'.

    A model that norms its queries, say, subclasses it or writes its own: it is one screen.

    Args:
        layer_idx: the layer's place in the cache.
        hidden_size: E.
        num_attention_heads, num_key_value_heads, head_dim: N, K, H.
        bias: whether the query, key and value projections have one.
        output_bias: whether the output projection has one; None: as `bias`.
        mapping: None: one rank; else heads are cut over the ranks.
    """

    def __init__(
        self,
        layer_idx: int,
        hidden_size: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        *,
        bias: bool = False,
        output_bias: bool | None = None,
        mapping: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = head_dim
        cut(num_key_value_heads, mapping or Mapping(), "num_key_value_heads")
        query_size, key_size = num_attention_heads * head_dim, num_key_value_heads * head_dim
        self.q_proj = ColumnLinear(hidden_size, query_size, bias, mapping=mapping)
        self.k_proj = ColumnLinear(hidden_size, key_size, bias, mapping=mapping)
        self.v_proj = ColumnLinear(hidden_size, key_size, bias, mapping=mapping)
        output_bias = bias if output_bias is None else output_bias
        self.o_proj = RowLinear(query_size, hidden_size, output_bias, mapping=mapping)

    def forward(
        self,
        hidden_BLE: Tensor,
        attention_mask: Tensor,
        cache: KVCache,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attention over all tokens so far.

        Args:
            hidden_BLE: the new tokens.
            attention_mask: [B, 1, L, S], from `causal_mask`.
            cache: the KV cache.
            position_embeddings: (cos, sin), [B, L, F] each, from `RotaryEmbedding`; None: no rotation.

        Returns:
            [B, L, E].
        """
        query_BNLH, key_BKLH, value_BKLH = (
            projection(hidden_BLE).view(0, 0, -1, self.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if position_embeddings is not None:
            query_BNLH = rotary_embedding(query_BNLH, *position_embeddings)
            key_BKLH = rotary_embedding(key_BKLH, *position_embeddings)
        key_BKSH, value_BKSH = cache.update(self.layer_idx, key_BKLH, value_BKLH)
        output_BLNH = attention(query_BNLH, key_BKSH, value_BKSH, mask=attention_mask)
        output_BLE: Tensor = self.o_proj(output_BLNH.view(0, 0, -1))
        return output_BLE
