"""Llama for TensorRT: the network of Hugging Face's `LlamaForCausalLM`.

Written by `trtllm-port new` from transformers/models/llama/modeling_llama.py, whose names it keeps.
"""

from __future__ import annotations

from trtllm_port.layers import (
    Activation,
    DecoderLayerList,
    DecoderModelForCausalLM,
    Embedding,
    KVCache,
    Linear,
    Module,
    RmsNorm,
    RotaryEmbedding,
    Tensor,
    attention,
    causal_mask,
    gather_tokens,
    rotary_embedding,
)

from .config import LlamaConfig
from .convert import WEIGHT_MAP


class LlamaAttention(Module):
    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.q_proj = Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=config.attention_bias)
        self.o_proj = Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=config.attention_bias)

    def forward(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, attention_mask: Tensor, cache: KVCache
    ) -> Tensor:
        query_states = self.q_proj(hidden_states).view(0, 0, -1, self.head_dim).transpose(1, 2)
        key_states = self.k_proj(hidden_states).view(0, 0, -1, self.head_dim).transpose(1, 2)
        value_states = self.v_proj(hidden_states).view(0, 0, -1, self.head_dim).transpose(1, 2)
        query_states = rotary_embedding(query_states, cos, sin)
        key_states = rotary_embedding(key_states, cos, sin)
        key_states, value_states = cache.update(self.layer_idx, key_states, value_states)
        attn_output = attention(query_states, key_states, value_states, mask=attention_mask, scale=self.scaling)
        return self.o_proj(attn_output.view(0, 0, -1))


class LlamaMLP(Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = Activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class LlamaDecoderLayer(Module):
    def __init__(self, config: LlamaConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, cos: Tensor, sin: Tensor, cache: KVCache
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states = self.self_attn(hidden_states, cos, sin, attention_mask, cache)
        hidden_states = residual + hidden_states
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        return residual + hidden_states


class LlamaModel(Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = DecoderLayerList(LlamaDecoderLayer, config)
        self.norm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim, config.max_position_embeddings)

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache) -> Tensor:
        hidden_states = self.embed_tokens(input_ids)
        attention_mask = causal_mask(position_ids, cache)
        cos, sin = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, cos, sin, cache)
        return self.norm(hidden_states)


class LlamaForCausalLM(DecoderModelForCausalLM):
    config_class = LlamaConfig
    weight_map = WEIGHT_MAP

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache, logits_indices: Tensor) -> Tensor:
        hidden_states = gather_tokens(self.model(input_ids, position_ids, cache), logits_indices)
        return self.lm_head(hidden_states)
