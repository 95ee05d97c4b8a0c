"""`ReferenceExecutor`: runs a network file with torch alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trtllm_port.errors import EngineError, PortError
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.network.dtypes import STORAGE
from trtllm_port.runtime.network.executor import Executor, OnTap, TensorSpec
from trtllm_port.runtime.network.kv_cache import STATE_PREFIX, replace_states
from trtllm_port.runtime.reference.arrangement import arrange
from trtllm_port.runtime.reference.caches import caches_of
from trtllm_port.runtime.reference.compiler import Compiler
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.runtime.reference.fusion import fused
from trtllm_port.runtime.reference.program import (
    SELF_SLOT,
    Slots,
    Step,
    execute,
    execute_observed,
    execute_together,
    with_liveness,
    with_releases,
)

RELEASE_BYTES = 512 << 20  # of weights read before their memory is given back

Observer = tuple[OnTap, Collection[str]]
"""What sees a run's taps, and which."""


class Continued(NamedTuple):
    """The sets of inputs from number `first` on go on from the first `slots` slots of the first set's KV caches."""

    first: int
    slots: int


class ReferenceExecutor(Executor):
    """Evaluates a TensorRT network layer by layer, by TensorRT's documented semantics, with torch on CPU or CUDA.

    Args:
        network: the network.
        weights: the checkpoint's tensors by name, in the dtypes that the network expects.
        device: where to run; the weights are moved there once.
        check: compare every computed tensor with the dtype and shape that TensorRT inferred for it. Slower.
        release: gives back the memory of memory-mapped weights; called time and again while the network runs.

    Raises:
        UnsupportedLayerError: a layer, or an attribute of one, is not implemented exactly.
        CheckpointError: a weight is missing, or does not have the network's dtype or size.
    """

    def __init__(
        self,
        network: NetworkFile,
        weights: Mapping[str, Tensor],
        *,
        device: str | torch.device = "cpu",
        check: bool = False,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.device = torch.empty(0, device=device).device  # "cuda" has become "cuda:0"
        super().__init__(
            network,
            name=f"reference executor (torch {torch.__version__.split('+')[0]}, {_device_name(self.device)})",
            inputs=_specs(network, network.inputs),
            outputs=_specs(network, network.outputs),
            taps=network.taps,
        )
        self._caches = caches_of(network)
        compiler = Compiler(network, weights, self.device)
        drafts = compiler.compile_nodes(arrange(network.layers))
        if release is not None:
            sizes = {slot: compiler.slots[slot].nbytes for slot in compiler.known}
            drafts = with_releases(drafts, sizes, release, RELEASE_BYTES, compiler.new_slot())
            release()
        self._input_slots = [(spec, compiler.slot(spec.name)) for spec in self.inputs]
        self._output_slots = {name: compiler.slot(name) for name in network.outputs}
        kept = {*self._output_slots.values(), *(compiler.slot(name) for name in network.taps.values())}
        self._steps = with_liveness(fused(drafts, kept, network.tensors, self.device), self._output_slots.values())
        self._every_step = with_liveness(drafts, self._output_slots.values())  # for taps inside of what was fused
        computed = {step.output for step in self._every_step} | {slot for _, slot in self._input_slots} | compiler.known
        self._slot_of = {name: compiler.slot(name) for name in network.tensors if compiler.slot(name) in computed}
        self._slots = compiler.slots
        self._records = {slot: (name, network.tensors[name]) for name, slot in self._slot_of.items()} if check else {}
        for slot in self._records:
            self._verify(slot, self._slots[slot])

    def run(
        self,
        feeds: Mapping[str, Tensor],
        *,
        on_tap: OnTap | None = None,
        taps: Collection[str] = (),
        stop_after: str | None = None,
    ) -> dict[str, Tensor]:
        """Execute the network once: see `Executor.run`. Taps are module paths or TensorRT tensor names."""
        slots = self._filled(feeds)
        with torch.no_grad():
            if not taps and stop_after is None and not self._records:
                execute(self._steps, slots)
                result = {name: slots[slot] for name, slot in self._output_slots.items()}
            else:
                result = self._observed(slots, on_tap, taps, stop_after)
        slots.clear()
        replace_states(feeds, result)
        return result

    def run_together(
        self,
        feeds: Sequence[Mapping[str, Tensor]],
        *,
        observers: Sequence[Observer] = (),
        continued: Continued | None = None,
    ) -> list[dict[str, Tensor]]:
        """Execute the network for several sets of inputs, layer by layer: each weight is read once for all of them.

        Sets may share KV caches if each masks the slots behind its own positions: all write before any reads.

        Args:
            feeds: every input by name, per set.
            observers: of the first sets, each with the taps that it sees, as in `run`.
            continued: sets that go on from the KV caches of the first.

        Raises:
            EngineError: the network has states, which one set would have to hand to the next.
        """
        stateful = [spec.name for spec in self.inputs if spec.name.startswith(STATE_PREFIX)]
        if stateful:
            raise EngineError(f"the network has states ({stateful[0]} and so on), so its runs follow one another")
        runs = [self._filled(each) for each in feeds]
        wanted = [self._handed_out_before(slots, *each) for slots, each in zip(runs, observers, strict=False)]

        updated = {slot for spec, slot in self._input_slots if spec.name in self._caches}

        def after(step: Step, number: int, value: Any) -> Any:
            if continued is not None and number == 0 and updated.intersection(step.inputs):
                for slots in runs[continued.first :]:
                    slots[step.inputs[0]][:, :, : continued.slots] = value[:, :, : continued.slots]
            if number >= len(observers) or step.output not in wanted[number]:
                return value
            return _handed_out(wanted[number][step.output], value, observers[number][0])

        with torch.no_grad():
            execute_together(self._every_step if observers else self._steps, runs, after)
        return [{name: slots[slot] for name, slot in self._output_slots.items()} for slots in runs]

    def _filled(self, feeds: Mapping[str, Tensor]) -> Slots:
        names = {spec.name for spec in self.inputs}
        if names != feeds.keys():
            raise EngineError(
                f"the network's inputs are not what it was fed: missing {sorted(names - feeds.keys())}, "
                f"unexpected {sorted(feeds.keys() - names)}"
            )
        slots = self._slots.copy()
        slots[SELF_SLOT] = slots
        for spec, slot in self._input_slots:
            slots[slot] = self._checked(spec, feeds[spec.name])
        return slots

    def _checked(self, spec: TensorSpec, tensor: Tensor) -> Tensor:
        if tensor.dtype != STORAGE[spec.dtype]:
            raise EngineError(f"the input {spec.name!r} has dtype {tensor.dtype}, expected {spec.dtype}")
        shape = tensor.shape
        if len(shape) != len(spec.shape) or any(want not in (-1, n) for n, want in zip(shape, spec.shape, strict=True)):
            raise EngineError(f"the input {spec.name!r} has shape {list(shape)}, expected {list(spec.shape)}")
        if tensor.device != self.device and spec.name in self._caches:
            raise EngineError(
                f"the cache {spec.name!r} is on {tensor.device}, it must be on {self.device} to be updated"
            )
        return tensor.to(self.device)

    def _observed(
        self,
        slots: Slots,
        on_tap: OnTap | None,
        taps: Collection[str],
        stop_after: str | None,
    ) -> dict[str, Tensor]:
        tapped: dict[str, Tensor] = {}
        on_tap = tapped.__setitem__ if on_tap is None else on_tap
        last = -1 if stop_after is None else self._tap_slot(stop_after)
        wanted = self._handed_out_before(slots, on_tap, taps)
        reached = {slot for slot in self._output_slots.values() if slots[slot] is not None}

        def after(step: Step, value: Any) -> bool:
            reached.add(step.output)
            self._verify(step.output, value)
            if step.output in wanted:
                slots[step.output] = _handed_out(wanted[step.output], value, on_tap)
            return step.output == last

        if last == -1 or slots[last] is None:
            execute_observed(self._every_step, slots, after)
        return {name: slots[slot] for name, slot in self._output_slots.items() if slot in reached} | tapped

    def _handed_out_before(self, slots: Slots, on_tap: OnTap, taps: Collection[str]) -> dict[int, list[str]]:
        """Hand out inputs and constants, which are there before the first step; return the names of taps by slot."""
        wanted: dict[int, list[str]] = {}
        for tap in taps:
            wanted.setdefault(self._tap_slot(tap), []).append(tap)
        for slot, names in wanted.items():
            if slots[slot] is not None:
                slots[slot] = _handed_out(names, slots[slot], on_tap)
        return wanted

    def _verify(self, slot: int, value: Any) -> None:
        if slot not in self._records or value is None:
            return
        name, record = self._records[slot]
        fits = len(value.shape) == len(record.shape) and all(
            want in (-1, size) for size, want in zip(value.shape, record.shape, strict=True)
        )
        if not fits or value.dtype != STORAGE[record.dtype]:
            raise LayerExecutionError(
                f"{name!r} came out as {value.dtype} {list(value.shape)}, "
                f"TensorRT infers {record.dtype} {list(record.shape)}"
            )

    def _tap_slot(self, tap: str) -> int:
        name = self._taps.get(tap, tap)
        if name not in self._slot_of:
            near = get_close_matches(tap, [*self._taps, *self._slot_of], n=3)
            raise PortError(
                f"the network has no tap {tap!r} outside of its loops",
                hint=f"did you mean {', '.join(near)}?" if near else None,
            )
        return self._slot_of[name]


def _handed_out(names: Sequence[str], value: Any, on_tap: OnTap) -> Any:
    """The value after all taps of one tensor have seen it, each what the one before left."""
    for name in names:
        other = on_tap(name, value)
        if other is None:
            continue
        if other.dtype != value.dtype or other.shape != value.shape:
            raise EngineError(
                f"the tap {name!r} was to be replaced by {other.dtype} {list(other.shape)}, "
                f"it is {value.dtype} {list(value.shape)}"
            )
        value = other.to(value.device)
    return value


def _device_name(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _specs(network: NetworkFile, names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, network.tensors[name].dtype, network.tensors[name].shape) for name in names)
