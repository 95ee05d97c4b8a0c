"""The first set of architectures, each at two sizes that share no number: one to generate from, one never seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LlamaForCausalLM": (
        dict(hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4)
        | dict(num_key_value_heads=2, head_dim=16, vocab_size=320, max_position_embeddings=512),
        dict(hidden_size=96, intermediate_size=200, num_hidden_layers=4, num_attention_heads=6)
        | dict(num_key_value_heads=3, head_dim=24, vocab_size=417, max_position_embeddings=384),
    ),
    "MistralForCausalLM": (
        dict(hidden_size=64, intermediate_size=144, num_hidden_layers=3, num_attention_heads=4)
        | dict(num_key_value_heads=2, head_dim=16, vocab_size=300, max_position_embeddings=512, sliding_window=64),
        dict(hidden_size=80, intermediate_size=208, num_hidden_layers=2, num_attention_heads=5)
        | dict(num_key_value_heads=5, head_dim=32, vocab_size=289, max_position_embeddings=400, sliding_window=37),
    ),
    "Qwen2ForCausalLM": (
        dict(hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4)
        | dict(num_key_value_heads=2, vocab_size=330, max_position_embeddings=512, tie_word_embeddings=True),
        dict(hidden_size=120, intermediate_size=192, num_hidden_layers=2, num_attention_heads=5)
        | dict(num_key_value_heads=1, vocab_size=401, max_position_embeddings=448, tie_word_embeddings=False),
    ),
    "Qwen3ForCausalLM": (
        dict(hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4)
        | dict(num_key_value_heads=2, head_dim=32, vocab_size=310, max_position_embeddings=512),
        dict(hidden_size=72, intermediate_size=136, num_hidden_layers=5, num_attention_heads=6)
        | dict(num_key_value_heads=2, head_dim=16, vocab_size=277, max_position_embeddings=640),
    ),
    "PhiForCausalLM": (
        dict(hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4)
        | dict(vocab_size=300, max_position_embeddings=512),
        dict(hidden_size=96, intermediate_size=320, num_hidden_layers=2, num_attention_heads=6)
        | dict(vocab_size=411, max_position_embeddings=384, layer_norm_eps=3e-5),
    ),
    "GPTNeoXForCausalLM": (
        dict(hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4)
        | dict(vocab_size=310, max_position_embeddings=512),
        dict(hidden_size=160, intermediate_size=288, num_hidden_layers=2, num_attention_heads=5)
        | dict(vocab_size=355, max_position_embeddings=320, layer_norm_eps=2e-5),
    ),
    "GPT2LMHeadModel": (
        dict(n_embd=64, n_layer=3, n_head=4, vocab_size=300, n_positions=512),
        dict(n_embd=96, n_layer=2, n_head=6, vocab_size=389, n_positions=448, layer_norm_epsilon=2e-5),
    ),
}


def write_config(architecture: str, sizes: dict[str, Any], directory: Path) -> Path:
    """A model directory without weights."""
    from transformers import AutoModelForCausalLM

    classes = {model.__name__: config for config, model in AutoModelForCausalLM._model_mapping.items()}
    config = classes[architecture](**sizes)
    config.architectures = [architecture]
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    return directory
