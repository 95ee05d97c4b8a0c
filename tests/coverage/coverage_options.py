"""Combinations of options that nobody chose: drawn at random, the same at every run.

Of a class's default config switches are turned over, sizes of heads, windows, activations and rotary scalings replaced.
What comes out is one more port of the type, which the generator's own check judges at a size that no trace has seen.
"""

from __future__ import annotations

import random
from typing import Any

# They say what a model returns, how it is called or trained, not what it computes.
NO_OPTIONS = {
    *("use_cache", "output_hidden_states", "output_attentions", "output_router_logits", "return_dict", "torchscript"),
    *("is_decoder", "is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder"),
}
ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function")
ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
SCALINGS: tuple[dict[str, Any], ...] = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    {
        **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
)


def random_options(config: dict[str, Any], seed: str) -> dict[str, Any]:
    """Draw values for some of the keys of a `config.json`.

    Args:
        config: its content.
        seed: of the choice.
    """
    draw = random.Random(seed)
    drawn = {key: _other(draw, key, value, config) for key, value in sorted(config.items()) if draw.random() < 0.5}
    return {key: value for key, value in drawn.items() if value is not None}


def _other(draw: random.Random, key: str, value: Any, config: dict[str, Any]) -> Any:
    """Another value of one key; None where it is no option."""
    if isinstance(value, bool):
        return None if key in NO_OPTIONS else not value
    if key in ACTIVATION_KEYS and value is not None:
        return draw.choice(ACTIVATIONS)
    if key == "num_key_value_heads" and value:
        heads = config.get("num_attention_heads") or value  # some have names of their own
        return draw.choice([1, max(1, heads // 2), heads])
    if key == "head_dim":
        return draw.choice([32, 64, 96, 160])
    if key == "sliding_window":
        return draw.choice([128, 1000])
    if key == "rope_parameters" and isinstance(value, dict) and "rope_theta" in value:
        other = {**value, **draw.choice(SCALINGS), "rope_theta": draw.choice([1e4, 5e5])}
        if "partial_rotary_factor" in value:
            other["partial_rotary_factor"] = draw.choice([0.25, 0.5, 1.0])
        return other
    return None
