"""The tensor operations of a module's own statements: recorded once, and replaced one at a time.

Operations inside the modules that it holds do not count: they have hypotheses of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Replacement = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called with (function, arguments, keyword arguments) in place of the function."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call.

    Attributes:
        index: its place among the module's own.
        name: of the function, without underscores: "mul", "softmax", "layer_norm".
        args, kwargs: what it was called with.
        result: what it returned.
    """

    index: int
    name: str
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    result: Any = field(repr=False)

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
        record: keep every call in `calls`.
    """

    def __init__(self, replacements: Mapping[int, Replacement] | None = None, *, record: bool = False) -> None:
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
        if self.record:
            plain = PLAIN.get(name, name)
            self.calls.append(Operation(index=index, name=plain, args=tuple(args), kwargs=kwargs or {}, result=result))
        return result


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
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()
