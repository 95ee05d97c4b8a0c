"""The {{ cookiecutter.name }} port, by hand: as it stands, a plain decoder like Llama. Make it your model.

Keep the module names of the original: then weights need no map, and `diff-layers` pairs every module by name.
"""

from __future__ import annotations

from trtllm_port.layers import (
    Attention,
    DecoderLayerList,
    DecoderModelForCausalLM,
    Embedding,
    GatedMLP,
    KVCache,
    Linear,
    Module,
    RmsNorm,
    RotaryEmbedding,
    Tensor,
    causal_mask,
    gather_tokens,
)

from .config import {{ cookiecutter.prefix }}Config
from .convert import WEIGHT_MAP


class {{ cookiecutter.prefix }}DecoderLayer(Module):
    def __init__(self, config: {{ cookiecutter.prefix }}Config, layer_idx: int) -> None:
        super().__init__()
        # TODO: your norms (RmsNorm, LayerNorm), attention (biases, norms of queries and keys) and MLP (GatedMLP, MLP)
        self.input_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(
            layer_idx,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: KVCache) -> Tensor:
        # TODO: the order of norms and residual sums
        attn_output = self.self_attn(self.input_layernorm(hidden_states), mask, cache, (cos, sin))
        hidden_states = hidden_states + attn_output
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class {{ cookiecutter.prefix }}Model(Module):
    def __init__(self, config: {{ cookiecutter.prefix }}Config) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = DecoderLayerList({{ cookiecutter.prefix }}DecoderLayer, config)
        self.norm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)
        # TODO: rotary, learned or no positions
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim, config.max_position_embeddings)

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache) -> Tensor:
        hidden_states = self.embed_tokens(input_ids)
        cos, sin = self.rotary_emb(hidden_states, position_ids)
        mask = causal_mask(position_ids, cache)  # TODO: window=... for sliding windows
        for layer in self.layers:
            hidden_states = layer(hidden_states, cos, sin, mask, cache)
        return self.norm(hidden_states)


class {{ cookiecutter.prefix }}ForCausalLM(DecoderModelForCausalLM):
    config_class = {{ cookiecutter.prefix }}Config
    weight_map = WEIGHT_MAP

    def __init__(self, config: {{ cookiecutter.prefix }}Config) -> None:
        super().__init__(config)
        self.model = {{ cookiecutter.prefix }}Model(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache, logits_indices: Tensor) -> Tensor:
        hidden_states = self.model(input_ids, position_ids, cache)
        # TODO: what is done to logits (scaling, soft caps)
        return self.lm_head(gather_tokens(hidden_states, logits_indices))
