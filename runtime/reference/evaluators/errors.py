"""What the reference executor refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Iterable

from trtllm_port.errors import PortError
from trtllm_port.runtime.network.schema import LayerRecord


class UnsupportedLayerError(PortError):
    """The network has a layer, or a layer's attribute, that the reference executor does not evaluate exactly."""

    @classmethod
    def unknown(cls, layer: LayerRecord, known: Iterable[str]) -> UnsupportedLayerError:
        """The layer's type has no evaluator."""
        return cls(
            f"the reference executor does not evaluate {layer.type} (layer {layer.name!r}). "
            f"It evaluates {', '.join(sorted(known))}.",
            hint="express the operation with those layers, or run the engine with TensorRT on a GPU",
        )

    @classmethod
    def of(cls, layer: LayerRecord, reason: str) -> UnsupportedLayerError:
        """The layer's type has an evaluator, which does not do what `reason` names."""
        return cls(
            f"the reference executor does not evaluate {layer.type} (layer {layer.name!r}) with {reason}",
            hint="express the operation otherwise, or run the engine with TensorRT on a GPU",
        )


class LayerExecutionError(PortError):
    """A layer could not be evaluated on the values that it met.

    Args:
        message, hint: see `PortError`.
        layer: its name, "" where it is not known: the path of the module that made it, a slash, and its operation.
    """

    def __init__(self, message: str, *, hint: str | None = None, layer: str = "") -> None:
        super().__init__(message, hint=hint)
        self.layer = layer
