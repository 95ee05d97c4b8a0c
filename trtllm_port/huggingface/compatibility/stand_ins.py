"""What stands behind old names that are more than another name for something: see `names.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trtllm_port.errors import UnsupportedModelError


def is_absent(*_: Any, **__: Any) -> bool:
    """Of a library that transformers has no use for any more: as if it were not installed."""
    return False


def is_there(*_: Any, **__: Any) -> bool:
    """Of what every supported release of torch has."""
    return True


def only_for_other_uses(*_: Any, **__: Any) -> Any:
    """In place of a function for uses other than to compute logits: of pruning, of several GPUs.

    Raises:
        UnsupportedModelError: it is called all the same.
    """
    raise UnsupportedModelError(
        "the model's own code calls a function of an older transformers that nothing takes the place of",
        hint="use a model whose code fits the installed `transformers`",
    )


# of models


def get_head_mask(self: Any, head_mask: Any, num_hidden_layers: int, is_attention_chunked: bool = False) -> Any:
    """No head is left out, layer by layer."""
    if head_mask is None:
        return [None] * num_hidden_layers
    return head_mask_of_layers(self, head_mask, num_hidden_layers)


def head_mask_of_layers(self: Any, head_mask: Tensor, num_hidden_layers: int) -> Tensor:
    """[layers, 1, N, 1, 1] of a mask [N] or [layers, N]."""
    rows = head_mask if head_mask.ndim == 2 else head_mask.expand(num_hidden_layers, -1)
    return rows[:, None, :, None, None]


# of caches


def get_usable_length(self: Any, new_seq_length: int = 0, layer_idx: int = 0) -> int:
    """How many tokens a cache holds: none of today's is given more than it has room for."""
    return int(self.get_seq_length(layer_idx))


def get_max_cache_shape(self: Any, layer_idx: int = 0) -> Any:
    """How many tokens a cache can hold; None: it grows."""
    length = self.get_max_length()
    return None if length is None or length < 0 else length


def to_legacy_cache(self: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """The keys and values of every layer."""
    return tuple((layer.keys, layer.values) for layer in self.layers)


def _from_legacy_cache(cls: Any, past_key_values: Iterable[tuple[Tensor, ...]] | None = None, *_: Any) -> Any:
    cache = cls()
    for number, (keys, values, *_rest) in enumerate(past_key_values or ()):
        cache.update(keys, values, number)
    return cache


from_legacy_cache = classmethod(_from_legacy_cache)
"""A cache that holds the keys and values of every layer."""


def _stored(self: Any, name: str) -> list[Tensor]:
    return [getattr(layer, name) for layer in self.layers if getattr(layer, name, None) is not None]


seen_tokens = property(lambda self: self.get_seq_length())
key_cache = property(lambda self: _stored(self, "keys"))
value_cache = property(lambda self: _stored(self, "values"))


def pair_of_layer(self: Any, layer_idx: int) -> tuple[Tensor, Tensor]:
    """The keys and values of a layer."""
    layer = self.layers[layer_idx]
    return layer.keys, layer.values


# of rotations


def default_frequencies(config: Any, device: Any = None, seq_len: int | None = None, **_: Any) -> tuple[Tensor, float]:
    """The inverse frequencies that no rope type changes, and the factor of the tables: what was called "default"."""
    rope = getattr(config, "rope_parameters", None) or {}
    theta = rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    part = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = int(head_dim * part)
    exponents = torch.arange(0, size, 2, dtype=torch.int64).to(device=device, dtype=torch.float) / size
    return 1.0 / (theta**exponents), 1.0
