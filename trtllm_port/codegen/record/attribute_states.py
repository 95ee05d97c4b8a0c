"""States that a model keeps as attributes of its modules, and not in a cache that its caller holds.

The step to record is then run as if there were no tokens before it (`use_cache=False`): recurrences and convolutions
begin at zero, as they are written for a whole text, and in the port each of them goes on from its state.
"""

from __future__ import annotations

from torch import Tensor, nn

Held = frozenset[tuple[int, str]]


def held_tensors(model: nn.Module) -> Held:
    """Which tensors the modules of a model hold that are neither parameters nor buffers."""
    return frozenset(
        (id(module), name)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    )
