"""Record what a Hugging Face model computes: every tensor operation, in its module, with its source line and names.

The model runs eagerly, as `transformers` runs it, under a `TorchFunctionMode`. So the record holds the operations that
the modelling file spells (`view`, `softmax`, `x[..., :n]`), the casts of the precision it runs in, the Python numbers
that reached them, and the names of the local variables that held each tensor. Attention, masks, the KV cache and
rotations are recorded as one operation each: hooks report them to the recorder that is active (`hooks.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import trtllm_port
from trtllm_port.codegen.ir.arguments import bind, is_in_place, takes_everything
from trtllm_port.codegen.ir.operation_names import CASTS, HOST_READS, NUMBERS, SILENT, SILENT_PROPERTIES
from trtllm_port.codegen.ir.record import Attribute, Call, Literal, Location, Operation, Value
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.codegen.record import formulas
from trtllm_port.codegen.record.attribute_states import plain_tensors
from trtllm_port.codegen.record.state_log import StateLog
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.interception.modelling_code import HELPERS

OURS = f"{Path(trtllm_port.__file__).parent}{os.sep}"  # where the files of this package are
LIBRARIES = ("/torch/", *HELPERS)  # which modelling code calls
_active: list[Recorder] = []


def active_recorder() -> Recorder | None:
    """The recorder of the forward pass that is running, if one records."""
    return _active[-1] if _active and _active[-1].is_recording else None


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """`recorder` as the one that the hooks report to."""
    _active.append(recorder)
    try:
        yield
    finally:
        _active.remove(recorder)


class Recorder(TorchFunctionMode):
    """Records one forward pass of `model`.

    Use as a context manager around the call; then `root` is the record.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.root: Call | None = None
        self.model_inputs: dict[str, Value] = {}
        self.states = StateLog()
        self._stack: list[Call] = []
        self._values: dict[int, Value] = {}
        plain = [held for module in model.modules() for held in plain_tensors(module).values()]
        self._held = [*model.parameters(), *model.buffers(), *plain]  # what is replaced keeps its identity valid
        self._attributes = _named_tensors(model)
        self._buffers = {key for key, attribute in self._attributes.items() if not attribute.persistent}
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._handles: list[Any] = []
        self.asked_for: set[str] = set()  # of transformers' interfaces: "attention", "mask"
        self._overwritten: list[Value] = []  # keeps their identities valid
        self._parts: dict[int, tuple[Any, ...]] = {}  # what indexing gave → itself, which tensor's part, which part
        self._numbers: set[Value] = set()  # made of Python numbers alone

    # the run

    def __enter__(self) -> Recorder:
        for path, module in self.model.named_modules():
            if id(module) not in self._paths:
                raise UnsupportedModelError(
                    f"`{path}` is another module once the model has run: what it computes depends on how long the "
                    "text is",
                    hint="a port is made for all lengths; see whether the config can choose one kind of module",
                )
            self._handles.append(module.register_forward_pre_hook(self._enter_module, prepend=True, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave_module, with_kwargs=True))
        super().__enter__()  # type: ignore[no-untyped-call]  # torch
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]  # torch
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = sys._getframe(1)
        self._learn_names(frame)
        bound = bind(module.forward, args, kwargs)
        if not self._stack:  # what the model is called with
            for leaf in leaves(bound):
                if isinstance(leaf, torch.Tensor):
                    self.value(leaf)
        call = Call(self._paths[id(module)], module, self.reference(bound), _location(frame))
        if self._stack:
            self._stack[-1].body.append(call)
        else:
            self.root = call
        self._stack.append(call)

    def _leave_module(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = self._stack.pop()
        given = (leaf for leaf in leaves(output) if isinstance(leaf, torch.Tensor))
        # A parameter that a module hands out is none of its results: who uses it uses the parameter.
        call.outputs = tuple(self.value(leaf) for leaf in given if id(leaf) not in self._attributes)

    # operations

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if not self._stack or name in SILENT:
            return func(*args, **kwargs)
        if name == "__get__":
            name = str(getattr(func, "__self__", func).__name__)
            if name in SILENT_PROPERTIES:
                return func(*args, **kwargs)
        frame = sys._getframe(1)
        self._learn_names(frame)
        if name in HOST_READS:
            read = {leaf for leaf in leaves(self.reference(tuple(args))) if isinstance(leaf, Value)}
            if read - self._numbers:
                self._stack[-1].host_reads.append((name, _location(frame)))
            return func(*args, **kwargs)
        part = self._parts.get(id(args[0])) if name == "copy_" else None
        if part is not None:  # `x[index].copy_(y)` is `x[index] = y`
            recorded = self.reference(((part[1], part[2], args[1]), {}))
            out = func(*args, **kwargs)
            self.record("__setitem__", recorded[0], {}, part[1], _location(frame), in_place=True)
            return out
        if name == "__setitem__" and self._is_there(*args):
            return func(*args, **kwargs)
        recorded = self.reference((tuple(args), kwargs))
        if is_in_place(name, kwargs) and args and id(args[0]) in self._parts:
            return self._change_part(name, func, args, kwargs, recorded, _location(frame))
        out = func(*args, **kwargs)
        if name in CASTS and args and out is args[0] and id(out) in self._buffers:
            return out  # which is what was asked for
        if name == "__getitem__" and takes_everything(args[1]) and out.shape == args[0].shape:
            return args[0]
        if name == "__getitem__":
            self._parts[id(out)] = (out, *args)
        if name in CASTS and args and out is args[0] and id(out) in self._values:
            out = out.view_as(out)  # a tensor of its own, to be told from what was cast
        self.record(name, recorded[0], recorded[1], out, _location(frame), in_place=is_in_place(name, kwargs))
        return out

    def _is_there(self, target: Any, index: Any, source: Any) -> bool:
        """Whether a write is the second half of `x[index] += y`, which has changed `x` by its part already."""
        part = self._parts.get(id(source))
        return part is not None and part[1] is target and repr(part[2]) == repr(index)

    def _change_part(
        self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, recorded: Any, location: Location | None
    ) -> Any:
        """Record a change in place of what indexing gave: a value of its own, written into the whole."""
        part, whole, index = self._parts[id(args[0])]
        target = self.reference((whole, index))
        out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            changed = part.clone()
        self.record(name, recorded[0], recorded[1], changed, location)
        self.record("__setitem__", (*target, self._values[id(changed)]), {}, whole, location, in_place=True)
        self._values[id(part)] = self._values[id(changed)]
        return out

    def record(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
        location: Location | None,
        *,
        in_place: bool = False,
    ) -> None:
        """Append an operation whose arguments were made by `reference` before it ran."""
        if in_place:
            out = out if isinstance(out, torch.Tensor) else getattr(args[0], "tensor", out)
            self._forget_aliases(out)
        tensors = [leaf for leaf in leaves(out) if isinstance(leaf, torch.Tensor)]
        known = [self._values.get(id(tensor)) for tensor in tensors]
        if not in_place and tensors and all(value is not None for value in known):
            return  # it gave back what it was given: `contiguous`, `to` of the same type
        outputs = tuple(self._new_value(tensor) for tensor in tensors)
        held = {leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Value | Attribute | Literal)}
        # What no file holds was made of numbers, too.
        given = {leaf for leaf in held if not isinstance(leaf, Attribute) or leaf.persistent}
        self._numbers |= {*outputs} if given <= self._numbers and (held or name in NUMBERS) else set()
        self._stack[-1].body.append(Operation(name, args, kwargs, outputs, location))

    def record_call(
        self, module: nn.Module, arguments: dict[str, Any], output: torch.Tensor, location: Location | None
    ) -> None:
        """Append a call of a module that the modelling code did not call: it used the module's parameters itself."""
        call = Call(self._paths[id(module)], module, self.reference(arguments), location, stands_for_function=True)
        call.outputs = (self.value(output),)
        self._stack[-1].body.append(call)

    def learn_names(self) -> None:
        """Take note of the local variables of the module that is running; for hooks."""
        self._learn_names(sys._getframe(2))

    def location(self) -> Location | None:
        """The line of modelling code that is running; for hooks."""
        return _location(sys._getframe(2))

    @property
    def path(self) -> str:
        """The full name of the module that is running."""
        return self._stack[-1].path

    @property
    def is_recording(self) -> bool:
        return bool(self._stack)

    def _forget_aliases(self, written: torch.Tensor) -> None:
        """After a write in place, other tensors of the same memory are no longer what was recorded for them."""
        storage = written.untyped_storage().data_ptr()
        for key, value in list(self._values.items()):
            if value.tensor is not written and value.tensor.untyped_storage().data_ptr() == storage:
                del self._values[key]
                self._overwritten.append(value)

    # tensors

    def value(self, tensor: torch.Tensor) -> Value:
        """The value of a tensor, a new one if it was never seen."""
        known = self._values.get(id(tensor))
        return known if known is not None else self._new_value(tensor)

    def _new_value(self, tensor: torch.Tensor) -> Value:
        value = self._values[id(tensor)] = Value(tensor)
        return value

    def reference(self, tree: Any) -> Any:
        """`tree` with its tensors replaced by what they are in the record."""
        return map_structure(self._reference, tree)

    def _reference(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in self._values:
            return self._values[id(leaf)]
        if id(leaf) in self._attributes:
            return self._attributes[id(leaf)]
        return Literal(leaf)

    def _learn_names(self, frame: FrameType | None) -> None:
        """Note which local variables of the running `forward`, and of the functions it called, hold which tensors."""
        call = self._stack[-1] if self._stack else None
        if call is None:
            return
        chain = []
        while frame is not None:
            function = frame.f_code.co_name
            if names_variables(frame.f_code.co_filename) and function[0] != "<":  # in a comprehension nothing is named
                chain.append(frame)
                if function == "forward" and frame.f_locals.get("self") is call.module:
                    break
            frame = frame.f_back
        else:
            return
        for inner in reversed(chain):
            for name, held in inner.f_locals.items():
                for leaf in leaves(held) if isinstance(held, tuple | list | dict) and len(held) < 64 else (held,):
                    if isinstance(leaf, torch.Tensor) and id(leaf) in self._values:
                        names = self._values[id(leaf)].names.setdefault(call, [])
                        label = name if leaf is held else f"{name}[]"
                        if label not in names:
                            names.append(label)


def _named_tensors(model: nn.Module) -> dict[int, Attribute]:
    found: dict[int, Attribute] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                found.setdefault(id(parameter), Attribute(prefix + name, True, tuple(parameter.shape)))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                # A mask is what its class makes it, also where a checkpoint has a copy (GPT-2's `attn.bias`).
                persistent = name not in module._non_persistent_buffers_set and buffer.dtype != torch.bool
                found.setdefault(id(buffer), Attribute(prefix + name, persistent, tuple(buffer.shape)))
        for name, held in plain_tensors(module).items():  # made once, and the same for every text
            found.setdefault(id(held), Attribute(prefix + name, False, tuple(held.shape)))
    return found


@cache
def is_between(file: str) -> bool:
    """Whether a file stands between modelling code and what is recorded: our own ones, and those of libraries."""
    return file.startswith(OURS) or any(part in file for part in LIBRARIES)


@cache
def names_variables(file: str) -> bool:
    """Whether a port has the names of a file's local variables: of modelling code, or of what stands for it."""
    return not is_between(file) or file == formulas.__file__


def _location(frame: FrameType | None) -> Location | None:
    while frame is not None:
        if not is_between(frame.f_code.co_filename):
            return Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None
