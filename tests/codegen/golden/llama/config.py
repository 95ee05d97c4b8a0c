"""Llama: what the port takes from Hugging Face's `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trtllm_port.layers import PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(PretrainedConfig):
    """Fields have the names and meanings of transformers' `LlamaConfig`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    hidden_act: str
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: dict[str, Any]
    attention_bias: bool
    mlp_bias: bool
    head_dim: int
