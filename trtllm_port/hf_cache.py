"""How transformers' models take and give back what they remember, and which position ids go with it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

NAMES = ("past_key_values", "cache_params", "state")


def keeps_cache(model: Any) -> bool:
    """Whether a model's `forward` takes what it remembers of earlier tokens; others compute all tokens anew."""
    return any(name in inspect.signature(model.forward).parameters for name in NAMES)


def cache_argument(model: Any) -> str:
    """The argument of a model's `forward`, and the field of its output, that holds KV caches or states."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[0])


def positions_are_slots(model: Any, ids_BL: Tensor) -> bool:
    """Whether a model takes position ids, and those of the first tokens are 0, 1, 2 and so on.

    Models of RoBERTa's kind begin at another number. Some models (Bamba) do not count the tokens in their cache: after
    the first call they must be told, as transformers' `generate` does.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    positions_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand(ids_BL.shape)
    with torch.no_grad():
        given, alone = (model(input_ids=ids_BL, **more).logits for more in ({"position_ids": positions_BL}, {}))
    return torch.equal(given, alone)
