"""What the full name of a module says: `model.layers.3.mlp` is in layer 3."""

from __future__ import annotations

import re

NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


def layer_number(path: str) -> int | None:
    """The number of the layer that a module is in, or None."""
    found = NUMBER.search(path)
    return int(found[1]) if found else None


def of_any_layer(path: str) -> str:
    """A module's name with its layer's number left open, as those of other layers are called, too."""
    return NUMBER.sub(".*", path)
