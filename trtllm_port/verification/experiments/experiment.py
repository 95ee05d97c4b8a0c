"""One module of Hugging Face, run again and again on its own input with something about it changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.huggingface.exact_arithmetic import tensors_as_they_are
from trtllm_port.verification.experiments.operations import Operation, Operations, Replacement, own_operations, units
from trtllm_port.verification.taps.hooks import INPUT_KEYWORDS, hooked, inputs_of, outputs_of
from trtllm_port.verification.taps.names import LOGITS, is_input, module_of
from trtllm_port.verification.taps.rotary_tables import match_table

# What an experiment may run into: shapes that do not fit, and code that was not made for what it got.
IMPOSSIBLE = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    StopIteration,
)


class _Reached(Exception):  # no error: the tensor was found, the rest need not run
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor


@dataclass
class Experiment:
    """A call of a module that can be repeated.

    Attributes:
        model: the whole model.
        path: of the module; "" is the model itself.
        args, kwargs: of its call.
        targets: the taps that are compared, each with the port's value and Hugging Face's own relative error: the
            module's output, or taps inside it. One counts at a time, see `at`.
        settled: a known bug explains everything, so that no number need be fitted any more.
    """

    model: nn.Module = field(repr=False)
    path: str
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    targets: Sequence[tuple[str, Tensor, float]] = field(repr=False)
    number: int = 0
    settled: bool = False
    _known: dict[nn.Module, tuple[Tensor, Any]] = field(default_factory=dict, repr=False)

    @property
    def target(self) -> str:
        """The tap that is compared."""
        return self.targets[self.number][0]

    @property
    def port(self) -> Tensor:
        """The port's value of it."""
        return self.targets[self.number][1]

    @property
    def noise(self) -> float:
        """The relative error that Hugging Face itself makes there."""
        return self.targets[self.number][2]

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """Compare at another target for a while."""
        before, self.number = self.number, number
        try:
            yield
        finally:
            self.number = before

    @cached_property
    def module(self) -> nn.Module:
        """The module."""
        return self.model.get_submodule(self.path)

    @property
    def config(self) -> Any:
        """The config of the language model."""
        return self.model.config.get_text_config()  # type: ignore[operator, union-attr]

    @cached_property
    def input(self) -> Tensor | None:
        """The module's first tensor."""
        return first_tensor((*self.args, *(self.kwargs[name] for name in INPUT_KEYWORDS if name in self.kwargs)))

    @cached_property
    def reference(self) -> Tensor:
        """The target as it is; what the module's parts return is kept on the way."""
        return self.run(patch=self._remember)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """What the module's own statements compute on the way to the target."""
        mode = Operations(record=inspect.unwrap(type(self.module).forward).__code__)
        self.run(patch=partial(own_operations, self.module, mode))
        return mode.operations()

    @cached_property
    def namespace(self) -> dict[str, Any]:
        """The globals of the module's code."""
        forward: Any = inspect.unwrap(type(self.module).forward)
        found: dict[str, Any] = getattr(forward, "__globals__", {})
        return found

    def error(self, value: Tensor) -> float:
        """Return how far the port is from a value of the target, relative; of choices the share that differs."""
        if not self.port.is_floating_point() and value.shape == self.port.shape and value.ndim > 1:
            return float((self.port.sort(-1).values != value.sort(-1).values).double().mean())
        if value.shape != self.port.shape:
            matched = match_table(value, self.port)
            if matched is None:
                return float("inf")
            value = matched
        port, value = self.port.to(torch.float64), value.to(torch.float64)
        norm = float(value.norm())
        error = float((port - value).norm())
        return error / norm if norm else float("inf") if error else 0.0

    @torch.no_grad()
    def run(
        self,
        *,
        patch: Callable[[], AbstractContextManager[Any]] = nullcontext,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        recall: bool = True,
    ) -> Tensor:
        """Call the module with something changed, until the target is known.

        Args:
            patch: changes it.
            args, kwargs: of the call, in place of its own.
            recall: parts that get what they got before return what they returned before.
        """
        with ExitStack() as stack:
            stack.enter_context(self._stop_at_target())
            if recall:
                stack.enter_context(self._recall())
            stack.enter_context(patch())
            stack.enter_context(tensors_as_they_are(False))
            try:
                output = self.module.forward(
                    *(self.args if args is None else args), **(self.kwargs if kwargs is None else kwargs)
                )
            except _Reached as reached:
                return reached.tensor
        if self.target == LOGITS:
            logits: Tensor = output.logits
            return logits
        return outputs_of(self.path, self.module, self.args, output)[self.target]

    def replacing(self, operation: Operation, replacement: Replacement) -> Tensor:
        """Run with one of the module's own operations replaced, as often as it is done."""
        return self.replacing_all({operation: replacement})

    def replacing_all(self, replacements: Mapping[Operation, Replacement]) -> Tensor:
        """Run with several of the module's own operations replaced."""
        by_index = {index: change for operation, change in replacements.items() for index in operation.indices}
        return self.run(patch=lambda: own_operations(self.module, Operations(by_index)))

    @contextmanager
    def _stop_at_target(self) -> Iterator[None]:
        inside = module_of(self.target)
        if self.target == LOGITS or inside == self.path:
            yield
            return
        module = self.model.get_submodule(inside)

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found = inputs_of(inside, args, kwargs).get(self.target)
            if found is not None:
                raise _Reached(found)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found = outputs_of(inside, module, args, output).get(self.target)
            if found is not None:
                raise _Reached(found)

        handle = (
            module.register_forward_pre_hook(before, with_kwargs=True)
            if is_input(self.target)
            else module.register_forward_hook(after)
        )
        with hooked([handle]):
            yield

    @contextmanager
    def _remember(self) -> Iterator[None]:
        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            found = first_tensor((*args, *(kwargs[name] for name in INPUT_KEYWORDS if name in kwargs)))
            if found is not None:
                self._known.setdefault(module, (found, output))

        with hooked(unit.register_forward_hook(after, with_kwargs=True) for unit in units(self.module)):
            yield

    @contextmanager
    def _recall(self) -> Iterator[None]:
        """Parts that get what they got before return what they returned before."""
        with ExitStack() as stack:
            for unit, (known, output) in self._known.items():
                stack.enter_context(attribute(unit, "forward", _recalling(unit.forward, known, output)))
            yield


def _recalling(forward: Callable[..., Any], known: Tensor, output: Any) -> Callable[..., Any]:
    def recalled(*args: Any, **kwargs: Any) -> Any:
        found = first_tensor((*args, *(kwargs[name] for name in INPUT_KEYWORDS if name in kwargs)))
        if found is not None and found.shape == known.shape and torch.equal(found, known):
            return output
        return forward(*args, **kwargs)

    return recalled


def first_tensor(values: Any) -> Tensor | None:
    """Return the first tensor of what a module got or returned."""
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        values = tuple(values.values())
    elif not isinstance(values, tuple | list):
        return None
    return next((value for value in values if isinstance(value, Tensor)), None)


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an object, or an entry of a dictionary, for a while."""
    if isinstance(owner, dict):
        before = owner[name]
        owner[name] = value
        try:
            yield
        finally:
            owner[name] = before
        return
    own = vars(owner)
    missing = object()
    kept = own.get(name, missing)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if kept is missing:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, kept)


@contextmanager
def parameter(module: nn.Module, name: str, value: Tensor) -> Iterator[None]:
    """Give a parameter or buffer another value for a while."""
    held: Any = getattr(module, name)
    before = held.data
    held.data = value.to(before.dtype)
    try:
        yield
    finally:
        held.data = before
