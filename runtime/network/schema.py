"""The network as plain data. What is written here is what `rank{r}.network.json` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FORMAT = "trtllm-port network"
VERSION = 1


@dataclass(frozen=True)
class TensorRecord:
    """A tensor's dtype and the shape that TensorRT inferred for it (-1: known only when it runs)."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a TensorRT network.

    Attributes:
        type: the name of TensorRT's `LayerType`, such as "SHUFFLE".
        inputs: tensor names; None where an optional input is absent.
        attributes: what TensorRT calls the layer's attributes, as numbers, strings, lists and None. Axis bit masks are
            lists of axes, enumerators their names, dtypes the names used everywhere here, transposes None where they
            change nothing.
    """

    type: str
    name: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Constant:
    """The value of a CONSTANT layer: a tensor of the checkpoint by its name, or the value itself.

    A 4-bit value is held in a tensor of the layer's shape, one element each; a checkpoint has two in a byte.
    """

    shape: tuple[int, ...]
    parameter: str | None = None
    value: torch.Tensor | None = None
