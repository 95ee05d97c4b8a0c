"""The tensor operations of a module's own statements: recorded once, and replaced one at a time.

Operations inside the modules that it holds do not count: they have hypotheses of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trtllm_port.verification.taps.hooks import hooked

Replacement = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called with (function, arguments, keyword arguments) in place of the function."""


Site = tuple[tuple[CodeType, int], ...]
"""Where in the source something is done: the code and the instruction, from the module's `forward` on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """What one piece of the source does, the first time of perhaps many: a loop over experts does it for each of them.

    Attributes:
        index: its place among the module's own.
        name: of the function, without underscores: "mul", "softmax", "layer_norm".
        args, kwargs: what it was called with.
        result: what it returned.
        site: where in the source.
        indices: every time that it is done.
        line: of the module's code.
    """

    index: int
    name: str
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    result: Any = field(repr=False)
    site: Site = field(repr=False)
    indices: tuple[int, ...] = ()
    line: int = 0

    @property
    def once(self) -> bool:
        """Whether it is done once only, so that its operands are all that there are."""
        return len(self.indices) == 1

    @property
    def number(self) -> tuple[int, float] | None:
        """The place and value of the operand that is a plain number, beside one that is a tensor."""
        if len(self.args) < 2 or not isinstance(self.result, Tensor):
            return None
        for place in (0, 1):
            value, other = self.args[place], self.args[1 - place]
            if isinstance(other, Tensor) and other.is_floating_point() and is_number(value):
                return place, float(value)
        return None


def operand(place: int) -> Replacement:
    """Return an operand in place of the result."""
    return lambda _function, args, _kwargs: args[place]


def is_number(value: Any) -> bool:
    """Whether it is a number, or a tensor that holds one."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point()
    return isinstance(value, int | float) and not isinstance(value, bool)


def units(module: nn.Module) -> list[nn.Module]:
    """Return the modules that a module calls itself: its children, and the elements of its lists."""
    found: list[nn.Module] = []
    for child in module.children():
        found += units(child) if isinstance(child, nn.ModuleList | nn.ModuleDict) else [child]
    return found


class Operations(TorchFunctionMode):
    """While active, counts the operations of a module's own statements.

    Args:
        replacements: by index.
        record: the code of the module's `forward`, to keep every call in `calls`.
    """

    def __init__(
        self, replacements: Mapping[int, Replacement] | None = None, *, record: CodeType | None = None
    ) -> None:
        super().__init__()
        self.replacements = replacements or {}
        self.record = record
        self.calls: list[Operation] = []
        self.depth = 0
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        if self.depth or name in ("get", "set", "len", "dim", "size"):
            return func(*args, **(kwargs or {}))
        index = self.count
        self.count += 1
        if index in self.replacements:
            return self.replacements[index](func, tuple(args), kwargs or {})
        result = func(*args, **(kwargs or {}))
        if self.record is not None:
            plain, (site, line) = PLAIN.get(name, name), _site(self.record)
            given = {"args": tuple(args), "kwargs": kwargs or {}, "result": result}
            self.calls.append(Operation(index=index, name=plain, site=site, line=line, indices=(index,), **given))
        return result

    def operations(self) -> tuple[Operation, ...]:
        """Return what was recorded, once for every piece of the source."""
        indices: dict[tuple[str, Site], list[int]] = {}
        for call in self.calls:
            indices.setdefault((call.name, call.site or ((_site.__code__, call.index),)), []).append(call.index)
        by_index = {call.index: call for call in self.calls}
        return tuple(replace(by_index[found[0]], indices=tuple(found)) for found in indices.values())


def _site(forward: CodeType) -> tuple[Site, int]:
    """Where the source that is running is, from `forward` on; nowhere if `forward` is not running."""
    found: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        found.append((frame.f_code, frame.f_lasti))
        if frame.f_code is forward:
            return tuple(reversed(found)), frame.f_lineno
        frame = frame.f_back
    return (), 0


PLAIN = {
    "rmul": "mul",
    "imul": "mul",
    "truediv": "div",
    "rtruediv": "rdiv",
    "radd": "add",
    "iadd": "add",
    "rsub": "sub",
}


@contextmanager
def own_operations(module: nn.Module, mode: Operations) -> Iterator[None]:
    """Let the mode see the module's own operations only."""

    def enter(*_: Any) -> None:
        mode.depth += 1

    def leave(*_: Any) -> None:
        mode.depth -= 1

    handles = [unit.register_forward_pre_hook(enter) for unit in units(module)]
    handles += [unit.register_forward_hook(leave) for unit in units(module)]
    with hooked(handles), mode:
        yield
