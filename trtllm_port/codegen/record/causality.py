"""Models that look at later tokens: a KV cache, which holds what earlier tokens gave, cannot give what they compute."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.record.mixed_products import mixed_products
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import keeps_cache

LENGTH = 24  # longer than what was traced: a model may keep tables of that length
SAME = LENGTH // 2  # tokens before those that change
CHANGED = 0.02  # relative, of the logits; rounding in half precision changes far less


def require_causal(model: nn.Module, model_type: str) -> None:
    """UnsupportedModelError if the logits of tokens change with the tokens behind them.

    Args:
        model: a small one, of any weights; it is not changed.
        model_type: for the message.
    """
    config: Any = model.config
    vocabulary = int(config.get_text_config(decoder=True).vocab_size)
    ids = torch.randint(3, vocabulary - 1, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, SAME:] += 1
    first, second = (_logits(model, tokens)[0, :SAME].float() for tokens in (ids, other))
    changes = (first - second).norm(dim=-1) / first.norm(dim=-1)
    if bool((changes[-3:] > CHANGED).all()):
        raise UnsupportedModelError(
            f"`{model_type}` looks at later tokens: the logits of a token change with those behind it",
            hint="a port is of a decoder; see whether the config can make the model one (`is_decoder`, `causal`)",
        )


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    """[B, L, V]; of a copy, as a model may keep states in its modules."""
    options = {"use_cache": False} if keeps_cache(model) else {}
    with torch.no_grad(), mixed_products(model):
        logits: Tensor = copy.deepcopy(model)(input_ids=ids, **options).logits
    return logits
