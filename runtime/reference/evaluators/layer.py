"""What an evaluator sees of its layer while the network is compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch

from trtllm_port.runtime.network.dtypes import STORAGE
from trtllm_port.runtime.network.schema import LayerRecord, TensorRecord
from trtllm_port.runtime.reference.evaluators.errors import UnsupportedLayerError

Evaluator = Callable[..., Any]  # the layer's inputs, None where absent → its output, a tuple if it has several


@dataclass(frozen=True)
class Bound:
    """An evaluator that reads other slots than the layer's inputs, such as values prepared once for several layers."""

    run: Evaluator
    inputs: tuple[int, ...]


class Compilation(Protocol):
    """The part of the compiler that evaluators may use."""

    device: torch.device

    def slot(self, name: str | None) -> int: ...
    def constant(self, name: str) -> torch.Tensor | None: ...
    def is_of_checkpoint(self, name: str) -> bool: ...
    def record(self, name: str) -> TensorRecord: ...
    def derive(self, slot: int, function: Evaluator) -> int: ...


class Layer:
    """One layer in the hands of its evaluator's factory: attributes, inputs, what is known of them beforehand."""

    def __init__(self, record: LayerRecord, compilation: Compilation) -> None:
        self.record = record
        self._compilation = compilation

    def __getitem__(self, attribute: str) -> Any:
        if attribute not in self.record.attributes:
            self.refuse(f"no attribute {attribute}: the network file is damaged")
        return self.record.attributes[attribute]

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._compilation.device

    def has(self, index: int) -> bool:
        """Whether the input at `index` is connected."""
        return index < len(self.record.inputs) and self.record.inputs[index] is not None

    def slot(self, index: int) -> int:
        """The slot of the input at `index`; that of None where it is absent."""
        return self._compilation.slot(self.record.inputs[index] if self.has(index) else None)

    def constant(self, index: int) -> torch.Tensor | None:
        """The value of an input that is known before the network runs, else None."""
        name = self.record.inputs[index] if self.has(index) else None
        return None if name is None else self._compilation.constant(name)

    def is_of_checkpoint(self, index: int) -> bool:
        """Whether an input is a tensor of the checkpoint."""
        name = self.record.inputs[index] if self.has(index) else None
        return name is not None and self._compilation.is_of_checkpoint(name)

    def input(self, index: int) -> TensorRecord:
        """Dtype and shape of a connected input."""
        name = self.record.inputs[index] if self.has(index) else None
        if name is None:
            self.refuse(f"no input {index}")
        return self._compilation.record(name)

    def output(self, index: int = 0) -> TensorRecord:
        """Dtype and shape of an output as TensorRT inferred them."""
        return self._compilation.record(self.record.outputs[index])

    def rank(self, index: int = 0) -> int:
        """The rank of an input."""
        return len(self.input(index).shape)

    def dtype(self, name: str) -> torch.dtype:
        """The torch dtype for one of our dtype names; refuses what torch cannot hold."""
        if name not in STORAGE:
            self.refuse(f"the dtype {name}")
        return STORAGE[name]

    def derive(self, slot: int, function: Evaluator) -> int:
        """The slot of `function(value of slot)`, computed once for all layers that ask for the same."""
        return self._compilation.derive(slot, function)

    def choose(self, attribute: str, table: dict[str, Any]) -> Any:
        """The entry of `table` for an enumerator attribute; refuses an enumerator that the table lacks."""
        value = self[attribute]
        if value not in table:
            self.refuse(f"{attribute} {value}")
        return table[value]

    def refuse(self, reason: str) -> NoReturn:
        """Raise: the layer is not evaluated with `reason`."""
        raise UnsupportedLayerError.of(self.record, reason)
