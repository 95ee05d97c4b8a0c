"""The record of a model's run: calls of modules, with the operations that they computed and the tensors of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trtllm_port.codegen.ir.trees import map_structure


@dataclass(frozen=True)
class Location:
    """Where in the modelling code something was computed."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        parts = self.file.replace("\\", "/").split("/")
        start = parts.index("transformers") if "transformers" in parts else max(0, len(parts) - 1)
        return f"{'/'.join(parts[start:])}:{self.line}"


@dataclass(eq=False)
class Value:
    """A tensor of the record.

    Attributes:
        tensor: its content for the example input; keeps the identity valid.
        names: call → local variables that held it there, first name first.
    """

    tensor: torch.Tensor
    names: dict[Call, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Attribute:
    """A parameter or buffer of the model, by its full name."""

    path: str
    persistent: bool  # stored in checkpoints
    shape: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, eq=False)
class Literal:
    """A tensor that the modelling code brought along: neither computed from the inputs nor an attribute of a module.

    Attributes:
        stays_bfloat16: it is in bfloat16 whatever the model's precision.
    """

    tensor: torch.Tensor
    stays_bfloat16: bool = False


@dataclass(eq=False)
class Operation:
    """One recorded operation; tensors in `args` and `kwargs` are `Value`, `Attribute` or `Literal`."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    location: Location | None


@dataclass(eq=False)
class Call:
    """One call of a module's `forward`.

    Attributes:
        path: the module's full name; "" for the model.
        args: the parameters of `forward` by name, with tensors as `Value`.
        body: what was computed inside, in order.
        outputs: the tensors it returned, in order.
        host_reads: where it looked at the content of a tensor that follows from the inputs, and how.
        stands_for_function: the modelling code called a convolution with its parameters, or it expert by expert.
    """

    path: str
    module: nn.Module
    args: dict[str, Any]
    location: Location | None
    body: list[Operation | Call] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()
    host_reads: list[tuple[str, Location | None]] = field(default_factory=list)
    stands_for_function: bool = False


def substitute(tree: Any, mapping: dict[Value, Value]) -> Any:
    """`tree` with values replaced."""
    return map_structure(lambda leaf: mapping.get(leaf, leaf) if isinstance(leaf, Value) else leaf, tree)
