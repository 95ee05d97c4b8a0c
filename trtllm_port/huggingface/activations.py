"""Activations as transformers names them in configs."""

from __future__ import annotations

from typing import Any

from transformers.activations import ACT2FN


def is_activation(name: str) -> bool:
    """Whether transformers knows an activation of this name."""
    return name in ACT2FN


def make_activation(name: str) -> Any:
    """A new module, or the function, of a name.

    Raises:
        KeyError: transformers knows none of this name.
    """
    return ACT2FN[name]
