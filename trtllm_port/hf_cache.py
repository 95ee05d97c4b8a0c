"""How transformers' models take and give back what they remember: the name differs."""

from __future__ import annotations

import inspect
from typing import Any

NAMES = ("past_key_values", "cache_params", "state")


def cache_argument(model: Any) -> str:
    """The argument of a model's `forward`, and the field of its output, that holds KV caches or states."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[0])
