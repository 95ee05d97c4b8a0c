"""States that a model keeps as attributes of its modules, and not in a cache that its caller holds.

The step to record is then run as if there were no tokens before it (`use_cache=False`): recurrences and convolutions
begin at zero, as they are written for a whole text, and in the port each of them goes on from its state.
"""

from __future__ import annotations

from torch import Tensor, nn

Held = frozenset[tuple[int, str]]


def plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a module holds itself and that are neither parameters nor buffers, by their names."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}


def held_tensors(model: nn.Module) -> Held:
    """Which tensors the modules of a model hold that are neither parameters nor buffers."""
    return frozenset((id(module), name) for module in model.modules() for name in plain_tensors(module))
