"""The intermediate form between the record of a model and the text of its port.

A `Block` is what one module (or one round of the layer loop) computes: inputs, nodes, outputs. It is made for every
call of every trace (`lowering.py`); blocks that differ in numbers only are merged into one (`merging.py`), which is
printed as a class (`classes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from typing import Literal as OneOf

from trtllm_port.codegen.recorder import Location, Value

if TYPE_CHECKING:
    from torch import nn

Form = OneOf["operator", "method", "function", "index", "call", "loop", "cache", "cast", "untranslated"]


@dataclass(frozen=True)
class Leaf:
    """A module that is one of the basic layers: its class in `trtllm_port.layers` and the arguments to make it.

    Attributes:
        keywords: arguments printed by name, without those that have their default value.
    """

    kind: str
    args: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Node:
    """One computation of a block.

    Attributes:
        form: how it is printed.
        name: the operator, method, function or attribute path.
        args: tensors (`Value`, `Attribute`, `Literal`) and Python values, in tuples where torch takes several.
        keywords: arguments printed by name.
        outputs: the tensors it gives.
        shapes: sizes of the first tensor argument, for those forms that need them.
        block: of a call: the module; of a loop: one round.
        roles: of a loop: for each input of `block`, "carried", "same" or "varying".
    """

    form: Form
    name: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[Value, ...]
    location: Location | None = None
    shapes: tuple[Any, ...] = ()
    block: Block | None = None
    roles: tuple[str, ...] = ()


@dataclass(eq=False)
class Block:
    """What a module computes.

    Attributes:
        path: the module's full name.
        module: the Hugging Face module; for a loop, the one that holds the layers.
        leaf: set for basic layers, whose nodes do not matter.
        host_reads: operations that looked at a tensor's content, with their places: what follows depends on the data.
        signature: the tensors that HF's `forward` was called with, in its order.
        names: value → local variables that held it in HF's `forward`, first one first.
    """

    path: str
    module: nn.Module
    inputs: tuple[Value, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()
    leaf: Leaf | None = None
    signature: tuple[Value, ...] = ()
    host_reads: tuple[str, ...] = ()
    names: dict[Value, list[str]] = field(default_factory=dict)

    @property
    def class_name(self) -> str:
        return type(self.module).__name__
