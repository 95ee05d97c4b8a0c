"""What modules that come with a model keep as plain attributes from one text to the next: tables, lengths, counters.

Some files take the table that an earlier text left behind, whatever its length is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trtllm_port.huggingface.compatibility.remote_code import is_remote

KEPT = (type(None), bool, int, float, tuple, Tensor)


class PlainAttributes:
    """Those of a model's modules as they are now; of a model of transformers none.

    Args:
        model: its parameters, buffers and modules are left alone.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = model.modules() if is_remote(type(model)) else ()
        self._held: list[tuple[nn.Module, dict[str, Any]]] = [(module, _plain(module)) for module in modules]

    def restore(self) -> None:
        """Make the attributes what they were."""
        for module, held in self._held:
            for name in _plain(module).keys() - held.keys():
                delattr(module, name)
            vars(module).update(held)


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, KEPT)}
