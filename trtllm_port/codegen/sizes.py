"""Tracing configurations: the user's config at sizes that are small and all different.

Every number that the traced computation shows is compared over these configurations, so sizes that must be told apart
must differ in at least one of them. Options, patterns and switches stay as they are. A further size is kept for the
check of the finished port (`check.py`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trtllm_port.codegen.recorder import words

SAMPLES = 4
BATCH = (2, 3, 5, 4)
LENGTH = (11, 13, 12, 17)
PAST = (6, 4, 5, 7)  # tokens in the cache before the traced step, so that key and query lengths differ
LAYERS = 4
UNSEEN = 4  # the column of `SIZES` that no trace uses
UNSEEN_LAYERS = 5

_HEADS = (4, 6, 6, 8, 10)
_HIDDEN = (64, 144, 120, 256, 160)  # a multiple of the heads
_HEAD_DIM = (24, 32, 40, 16, 20)  # differs from hidden / heads

SIZES: dict[str, tuple[int | float, ...]] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_dim", "word_embed_proj_dim"), _HIDDEN),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "dff", "ffn_hidden_size", "n_inner", "decoder_ffn_dim"),
        (88, 136, 168, 104, 152),
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "decoder_attention_heads"), _HEADS
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv"), (2, 2, 3, 4, 5)),
    **dict.fromkeys(("head_dim", "attention_head_size", "d_head", "dim_head", "kv_channels"), _HEAD_DIM),
    **dict.fromkeys(("rotary_dim",), (8, 12, 16, 6, 10)),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct", "rope_pct"), (0.25, 0.75, 0.4, 0.5, 0.5)),
    **dict.fromkeys(("vocab_size",), (101, 131, 163, 193, 211)),
    **dict.fromkeys(
        (
            *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions"),
            *("context_length", "model_max_length"),
        ),
        (96, 120, 144, 80, 640),
    ),
    **dict.fromkeys(
        ("sliding_window", "sliding_window_size", "window_size", "attention_window_size"), (5, 7, 6, 9, 100)
    ),
    **dict.fromkeys(("attention_chunk_size", "local_attention"), (7, 5, 8, 6, 90)),
}
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
SPECIAL_TOKENS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 3,
    "decoder_start_token_id": 1,
}

# Keys of every config that say how a model is stored, named, trained or called, not what it computes.
META_KEYS = words(
    "transformers_version architectures model_type _name_or_path name_or_path dtype torch_dtype auto_map "
    "quantization_config _attn_implementation attn_implementation _experts_implementation id2label label2id "
    "problem_type num_labels return_dict output_hidden_states output_attentions chunk_size_feed_forward use_cache "
    "is_encoder_decoder task_specific_params finetuning_task tokenizer_class prefix custom_pipelines "
    "cache_implementation"
)


@dataclass(frozen=True)
class Sample:
    """One configuration (a Hugging Face config) to trace, and the sizes of the example input."""

    config: Any
    batch: int
    length: int
    past: int

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config's keys and values, as `config_values` gives them."""
        return config_values(self.config)

    def with_values(self, changes: dict[str, Any]) -> Sample:
        """The same sample with some keys of the config changed; raises whatever the config class raises for them."""
        values = {**self.values, **changes}
        return replace(self, config=make_config(self.config, values))


def config_values(config: Any) -> dict[str, Any]:
    """The config's keys and values as JSON types, derived ones included, without those of `META_KEYS`."""
    values = {key: value for key, value in config.to_dict().items() if key not in META_KEYS and not key.startswith("_")}
    return dict(json.loads(json.dumps(values, default=str)))


def make_config(like: Any, values: dict[str, Any]) -> Any:
    """A config of the class of `like` with these values."""
    return type(like)(**copy.deepcopy(values))


def layer_count_key(values: dict[str, Any]) -> str | None:
    """The key that counts the decoder layers, or None."""
    return next((key for key in LAYER_COUNTS if isinstance(values.get(key), int)), None)


def layer_count(config: Any) -> int:
    """How many decoder layers a config asks for; 0 if no key says so."""
    values = config_values(config)
    key = layer_count_key(values)
    return int(values[key]) if key is not None else 0


def make_samples(config: Any, count: int = SAMPLES) -> list[Sample]:
    """`count` small versions of `config` whose sizes are all different."""
    values = config_values(config)
    values = _shorten_layers(values)
    return [
        Sample(make_config(config, _resize(values, index)), BATCH[index], LENGTH[index], PAST[index])
        for index in range(count)
    ]


def unseen_config(config: Any) -> Any:
    """A small version of `config` of a size that no trace has: other widths, heads, layers, vocabulary, window."""
    return make_config(config, _resize(_shorten_layers(config_values(config), UNSEEN_LAYERS), UNSEEN))


def _shorten_layers(values: dict[str, Any], wanted: int = LAYERS) -> dict[str, Any]:
    """Few layers, chosen so that every combination of per-layer values of the config is kept."""
    key = layer_count_key(values)
    if key is None:
        return values
    total = values[key]
    lists = {name: value for name, value in values.items() if isinstance(value, list) and len(value) == total > 1}
    chosen: list[int] = []
    seen: set[str] = set()
    for index in range(total):
        combination = json.dumps([value[index] for value in lists.values()])
        if combination not in seen:
            seen.add(combination)
            chosen.append(index)
    chosen += [index for index in range(total) if index not in chosen][: max(0, wanted - len(chosen))]
    chosen.sort()
    count = max(wanted, len(chosen))
    chosen += [chosen[-1]] * (count - len(chosen))  # a config with fewer layers
    shortened = {name: [value[index] for index in chosen] for name, value in lists.items()}
    return {**values, **shortened, **{name: count for name in LAYER_COUNTS if values.get(name) == total}}


def _resize(values: dict[str, Any], index: int, *, nested: bool = False) -> dict[str, Any]:
    """The values of one column; whole numbers in nested dicts (`"rope_theta": 10000`) are no sizes."""
    resized = {}
    for key, value in values.items():
        if key in LAYER_COUNTS or isinstance(value, bool) or value is None:
            resized[key] = value
        elif key in SPECIAL_TOKENS and isinstance(value, int | list):
            resized[key] = SPECIAL_TOKENS[key]
        elif isinstance(value, int | float) and key in SIZES and value:
            resized[key] = SIZES[key][index]
        elif (isinstance(value, float) or (nested and isinstance(value, int))) and value:
            resized[key] = value * _factor(key, index)
        elif isinstance(value, dict):
            resized[key] = _resize(value, index, nested=True)
        else:
            resized[key] = value
    return resized


def _factor(key: str, index: int) -> float:
    """A factor between 1 and 1.5 of its own for every key, so that equal numbers of a config can be told apart."""
    number = int.from_bytes(hashlib.sha256(f"{key}:{index}".encode()).digest()[:2], "little")
    return 1.0 + 0.5 * number / 2**16 if index else 1.0
