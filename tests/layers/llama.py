"""A Llama written by hand in the style of a port: the modules that the tests of `layers/` run as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from trtllm_port.layers import (
    DecoderLayerList,
    DecoderModelForCausalLM,
    Embedding,
    KVCache,
    Linear,
    Module,
    PretrainedConfig,
    RmsNorm,
    RotaryEmbedding,
    Tensor,
    attention,
    causal_mask,
    gather_tokens,
    rotary_embedding,
    silu,
)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(PretrainedConfig):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope_parameters: dict[str, Any]

    FIXED: ClassVar[dict[str, Any]] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


class LlamaMLP(Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaAttention(Module):
    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.q_proj = Linear(config.hidden_size, config.num_attention_heads * config.head_dim, bias=False)
        self.k_proj = Linear(config.hidden_size, config.num_key_value_heads * config.head_dim, bias=False)
        self.v_proj = Linear(config.hidden_size, config.num_key_value_heads * config.head_dim, bias=False)
        self.o_proj = Linear(config.num_attention_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, attention_mask: Tensor, cache: KVCache
    ) -> Tensor:
        query_states = self.q_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
        key_states = self.k_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
        value_states = self.v_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
        query_states = rotary_embedding(query_states, cos, sin)
        key_states = rotary_embedding(key_states, cos, sin)
        key_states, value_states = cache.update(self.layer_idx, key_states, value_states)
        attn_output = attention(
            query_states, key_states, value_states, mask=attention_mask, scale=self.config.head_dim**-0.5
        )
        return self.o_proj(attn_output.view(0, 0, -1))


class LlamaDecoderLayer(Module):
    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, attention_mask: Tensor, cache: KVCache
    ) -> Tensor:
        attn_output = self.self_attn(self.input_layernorm(hidden_states), cos, sin, attention_mask, cache)
        hidden_states = hidden_states + attn_output
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class LlamaModel(Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = DecoderLayerList(LlamaDecoderLayer, config)
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim, config.max_position_embeddings)

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache) -> Tensor:
        hidden_states = self.embed_tokens(input_ids)
        cos, sin = self.rotary_emb(hidden_states, position_ids)
        attention_mask = causal_mask(position_ids, cache)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cos, sin, attention_mask, cache)
        return self.norm(hidden_states)


class LlamaForCausalLM(DecoderModelForCausalLM):
    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache, logits_indices: Tensor) -> Tensor:
        hidden_states = gather_tokens(self.model(input_ids, position_ids, cache), logits_indices)
        return self.lm_head(hidden_states)
