"""Compiles a network file into a program: numbers the tensors, binds each layer's evaluator, folds what is constant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter

import torch

from trtllm_port.errors import CheckpointError, PortError
from trtllm_port.runtime.network import Constant, LayerRecord, NetworkFile, TensorRecord
from trtllm_port.runtime.network.dtypes import PACKED, STORAGE
from trtllm_port.runtime.reference.arrangement import BOUNDARY, Loop, Node
from trtllm_port.runtime.reference.evaluators import EVALUATORS
from trtllm_port.runtime.reference.evaluators.errors import UnsupportedLayerError
from trtllm_port.runtime.reference.evaluators.layer import Bound, Evaluator, Layer
from trtllm_port.runtime.reference.evaluators.quantization import Dequantized
from trtllm_port.runtime.reference.loops import compile_loop
from trtllm_port.runtime.reference.program import FIRST_FREE_SLOT, NONE_SLOT, Draft, Slots, execute, with_liveness

# Constants are values and loops are steps of their own, without an evaluator.
SUPPORTED = frozenset(EVALUATORS) | {"CONSTANT", *BOUNDARY}
# Never folded: they change what they are given, or run through the list of slots.
IMPURE = {"KV_CACHE_UPDATE", "LOOP_OUTPUT"}


class Compiler:
    """Turns layers into steps. One instance compiles one network; the results are `slots` and the steps.

    Args:
        network: what to compile.
        weights: checkpoint tensors by name.
        device: where the program runs; constants are moved there once.

    Attributes:
        slots: what the slots hold before a run: the constants, and what was computed from constants alone.
        known: the numbers of those slots.
    """

    def __init__(self, network: NetworkFile, weights: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self.network = network
        self.device = device
        self._numbers: dict[str, int] = {}
        self.slots: Slots = [None] * FIRST_FREE_SLOT
        self.known: set[int] = set()
        self._derived: dict[tuple[int, Evaluator], int] = {}
        self._drafts: list[Draft] = []
        moved: dict[str, torch.Tensor] = {}
        for name, constant in network.constants.items():
            if constant.parameter is not None and constant.parameter not in moved:
                moved[constant.parameter] = _parameter(constant.parameter, weights).to(device)
            self._know(self.slot(name), self._value(name, constant, moved))

    def slot(self, name: str | None) -> int:
        """The number of a tensor's slot; a new one at the first call."""
        if name is None:
            return NONE_SLOT
        if name not in self._numbers:
            self._numbers[name] = self.new_slot()
        return self._numbers[name]

    def record(self, name: str) -> TensorRecord:
        """Dtype and shape of a tensor."""
        return self.network.tensors[name]

    def constant(self, name: str) -> torch.Tensor | None:
        """The value of a tensor that is known before the network runs."""
        slot = self.slot(name)
        value: torch.Tensor | None = self.slots[slot] if slot in self.known else None
        return value

    def is_of_checkpoint(self, name: str) -> bool:
        """Whether a tensor is a constant that the checkpoint holds."""
        constant = self.network.constants.get(name)
        return constant is not None and constant.parameter is not None

    def derive(self, slot: int, function: Evaluator) -> int:
        """A slot for `function(value of slot)`, computed once."""
        key = (slot, function)
        if key not in self._derived:
            self._derived[key] = self.new_slot()
            self._emit(Draft(function, (slot,), self._derived[key], self._current))
        return self._derived[key]

    def compile_nodes(self, nodes: Iterable[Node]) -> list[Draft]:
        """Steps for `nodes`, which must come after those that they read from; constants are folded away."""
        outer, self._drafts = self._drafts, []
        outer_derived, self._derived = self._derived, dict(self._derived)
        for node in nodes:
            if isinstance(node, Loop):
                draft, outputs = compile_loop(node, self)
                self._emit_several(draft, [self.slot(name) for name in outputs])
            else:
                self._current = node
                self._compile(node)
        drafts, self._drafts, self._derived = self._drafts, outer, outer_derived
        return drafts

    def _compile(self, layer: LayerRecord) -> None:
        if layer.type == "CONSTANT":
            return
        if layer.type not in EVALUATORS:
            raise UnsupportedLayerError.unknown(layer, SUPPORTED)
        bound = EVALUATORS[layer.type](Layer(layer, self))
        if not isinstance(bound, Bound):
            bound = Bound(bound, tuple(self.slot(name) for name in layer.inputs))
        outputs = [self.slot(name) for name in layer.outputs]
        if len(outputs) == 1:
            self._emit(Draft(bound.run, bound.inputs, outputs[0], layer))
            return
        self._emit_several(Draft(bound.run, bound.inputs, self.new_slot(), layer), outputs)

    def _emit_several(self, draft: Draft, outputs: Iterable[int]) -> None:
        self._emit(draft)
        for index, output in enumerate(outputs):
            self._emit(Draft(itemgetter(index), (draft.output,), output, draft.layer))

    def _emit(self, draft: Draft) -> None:
        if draft.layer.type not in IMPURE and draft.reads <= self.known and not isinstance(draft.run, Dequantized):
            execute(with_liveness([draft], [draft.output]), self.slots)
            self.known.add(draft.output)
        else:
            self._drafts.append(draft)

    def new_slot(self) -> int:
        """The number of a slot that no tensor has."""
        self.slots.append(None)
        return len(self.slots) - 1

    def _know(self, slot: int, value: torch.Tensor) -> None:
        self.slots[slot] = value
        self.known.add(slot)

    def _value(self, name: str, constant: Constant, moved: Mapping[str, torch.Tensor]) -> torch.Tensor:
        record = self.record(name)
        if record.dtype not in STORAGE:
            raise PortError(f"the constant {name!r} has dtype {record.dtype}, which torch cannot hold")
        value = moved[constant.parameter] if constant.parameter is not None else constant.value
        if value is None:
            raise PortError(f"the constant {name!r} has neither a parameter nor a value")
        if record.dtype in PACKED and value.dtype == torch.uint8:
            return value.to(self.device)
        if value.dtype != STORAGE[record.dtype]:
            raise CheckpointError(
                f"{constant.parameter or name!r} has dtype {value.dtype}, the network expects {record.dtype}",
                hint="the checkpoint and the network file do not belong together",
            )
        if [size for size in value.shape if size != 1] != [size for size in constant.shape if size != 1]:
            raise CheckpointError(
                f"{constant.parameter or name!r} has shape {list(value.shape)}, expected {list(constant.shape)}",
                hint="the checkpoint and the network file do not belong together",
            )
        return value.to(self.device).reshape(constant.shape)


def _parameter(name: str, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if name not in weights:
        raise CheckpointError(
            f"the checkpoint has no tensor {name!r}, which the network needs",
            hint="the checkpoint and the network file do not belong together",
        )
    return weights[name]
