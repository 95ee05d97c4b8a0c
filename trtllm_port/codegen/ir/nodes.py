"""The intermediate form between the record of a model and the text of its port.

A `Block` is what one module (or one round of the layer loop) computes: inputs, nodes, outputs. It is made for every
call of every trace (`lower/`), which is an `Instance`; blocks that differ in numbers only are merged into one
(`merge/`), which is printed as a class (`write/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from typing import Literal as OneOf

from torch import nn

from trtllm_port.codegen.ir.module_paths import NUMBER, layer_number
from trtllm_port.codegen.ir.record import Location, Value
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves

Form = OneOf[
    "operator",
    "method",
    "function",
    "index",
    "call",
    "loop",
    "branch",
    "cache",
    "cast",
    "attribute",
    "nothing",
    "alias",
    "untranslated",
]


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
        block: of a call: the module; of a merged loop: the body, over all rounds.
        roles: of a loop: for each input of a round, "carried", "same" or "varying". An argument that is varying is a
            tuple: one value for each round, or in a merged loop the different ones.
        rounds: of a loop: what each round computes, with equally many inputs and outputs.
        instances: of a merged loop: the rounds in all instances.
        choices: of a merged loop: argument → for each of `instances`, which of the different values it takes.
        branch: of a branch.
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
    rounds: tuple[Block, ...] = ()
    instances: list[Instance] = field(default_factory=list)
    choices: dict[int, tuple[int, ...]] = field(default_factory=dict)
    branch: Branch | None = None


@dataclass(eq=False)
class Branch:
    """What instances of a class compute differently.

    Attributes:
        guard: for each instance, whether it takes the first side; None where both would do.
        sides: what the two kinds of instances compute.
        results: for each output of the node, what it is on the two sides; None on a side that does not have it.
        paths: a module of either kind, for messages.
        second: where some instances take neither side, as they do not have what the second hands on: for each
            instance, whether it takes the second; None for those of the first.
    """

    guard: tuple[bool | None, ...]
    sides: tuple[list[Node], list[Node]]
    results: tuple[tuple[Value | None, Value | None], ...]
    paths: tuple[str, str]
    second: tuple[bool | None, ...] | None = None

    def of_side(self, number: int) -> tuple[Value, ...]:
        """The values of the results that a side has."""
        values = (sources[number] for sources in self.results)
        return tuple(value for value in values if value is not None)


@dataclass(eq=False)
class Block:
    """What a module computes.

    Attributes:
        path: the module's full name.
        module: the Hugging Face module; for a round of a loop, the one that holds the layers.
        leaf: set for basic layers, whose nodes do not matter.
        host_reads: operations that looked at a tensor's content, with their places: what follows depends on the data.
        keys: what the inputs are called, which tells them apart in other instances: names in `signature`, numbers.
        optional: of the keys: those of inputs that are None in some layer, which does not look at them.
        returned: the tensors that HF's `forward` gave back; `outputs` are those of them that are needed.
        signature: the tensors that HF's `forward` was called with, in its order, by name.
        names: value → local variables that held it in HF's `forward`, first one first.
    """

    path: str
    module: nn.Module
    inputs: tuple[Value, ...] = ()
    keys: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()
    leaf: Leaf | None = None
    optional: frozenset[str] = frozenset()
    returned: tuple[Value, ...] = ()
    signature: dict[str, Value] = field(default_factory=dict)
    host_reads: tuple[str, ...] = ()
    names: dict[Value, list[str]] = field(default_factory=dict)

    @property
    def class_name(self) -> str:
        return type(self.module).__name__


@dataclass(eq=False)
class Instance:
    """One block of one trace.

    Attributes:
        round: of a loop's round, its number.
    """

    trace: Trace
    block: Block
    round: int | None = None

    @property
    def layer_idx(self) -> int | None:
        """The number of the layer that the module is in, or None; of several in one layer the number it was given."""
        if self.round is not None:
            return self.round
        given = self.trace.made_with.get(self.block.module, {}).get("layer_idx")
        several = len(NUMBER.findall(self.block.path)) > 1
        return given if several and type(given) is int else layer_number(self.block.path)


def blocks_in(block: Block) -> Iterator[Block]:
    """A block, and those of all that it calls and that is no basic layer, outermost first."""
    yield block
    for node in block.nodes:
        if node.block is not None and node.block.leaf is None:
            yield from blocks_in(node.block)


def calls(block: Block) -> Iterator[Node]:
    """The calls of modules in a block that is not merged; in a loop those of every round."""
    for node in block.nodes:
        if node.form == "call":
            yield node
        for one in node.rounds:
            yield from calls(one)


def values_in(tree: Any) -> Iterator[Value]:
    """The tensors among arguments."""
    return (leaf for leaf in leaves(tree) if isinstance(leaf, Value))
