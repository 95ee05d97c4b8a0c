"""Calls of the layers of one list, one after the other, as one loop."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from torch import nn

from trtllm_port.codegen.ir.alignment import Slot, align
from trtllm_port.codegen.ir.nodes import Block, Node, blocks_in, values_in
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.ir.structure import label
from trtllm_port.errors import UnsupportedModelError

LAYER = re.compile(r"^(?P<list>\w+(?:\.\w+)*)\.(?P<index>\d+)$")
Place = tuple[int, int]  # (slot, output) in a round


def roll_loops(block: Block, layers: int) -> None:
    """Replace the calls of `layers.0`, `layers.1`, … in a block, and in the blocks it calls, by a node "loop".

    Args:
        block: changed in place.
        layers: how many decoder layers the model has; other lists of modules (experts, say) need not be loops.

    Raises:
        UnsupportedModelError: the rounds of the decoder layers do not hand on the same tensors.
    """
    for node in block.nodes:
        if node.block is not None and node.block.leaf is None:
            roll_loops(node.block, layers)
    starts = [i for i, node in enumerate(block.nodes) if node.form == "call" and LAYER.match(node.name)]
    lists = dict.fromkeys(LAYER.match(block.nodes[i].name)["list"] for i in starts)  # type: ignore[index]
    for name in lists:
        _roll_list(block, name, layers)


def _roll_list(block: Block, name: str, layers: int) -> None:
    indices = [i for i, node in enumerate(block.nodes) if node.form == "call" and _list_of(node) == name]
    numbers = [int(block.nodes[i].name.rpartition(".")[2]) for i in indices]
    every = list(range(_length(block, name) if numbers else 0))
    gaps = [number for number in every if number not in numbers] if len(every) == layers else []
    if len(indices) < 2 or sorted([*numbers, *gaps]) != every[: len(numbers) + len(gaps)] or numbers != sorted(numbers):
        return
    problem = "one of its layers computes nothing"
    for start, rounds in _cuts(block, indices):
        loop = _Rounds(block, name, rounds)
        problem = loop.problem
        if not problem:
            stop = start + sum(map(len, rounds))
            block.nodes[start:stop] = [*loop.nothing, with_gaps(loop.node(), gaps)]
            return
    if len(numbers) + len(gaps) == layers:
        raise UnsupportedModelError(
            f"`{block.class_name}` does not treat all of `{name}` alike, which the generator cannot express: {problem}",
            hint="write this part by hand: `trtllm-port new --blank NAME`",
        )


def _length(block: Block, name: str) -> int:
    """How many modules a list has, those included that the model does not call."""
    found = block.module.get_submodule(name)
    return len(found) if isinstance(found, nn.ModuleList) else 0


def with_gaps(loop: Node, gaps: list[int]) -> Node:
    """A loop over layers some of which the model passes over: their rounds compute nothing.

    Args:
        loop: over the others.
        gaps: numbers of those layers, in order.
    """
    rounds, args = list(loop.rounds), list(loop.args)
    for number in gaps:
        like = rounds[max(0, number - 1)]
        carried = iter(rounds[number - 1].outputs if number else ())
        inputs = tuple(
            next(carried) if role == "carried" and number else value
            for role, value in zip(loop.roles, like.inputs, strict=True)
        )
        outputs = tuple(v for role, v in zip(loop.roles, inputs, strict=True) if role == "carried")
        rounds.insert(number, replace(like, nodes=[], inputs=inputs, outputs=outputs))
        for place, role in enumerate(loop.roles):
            if role == "varying":
                args[place] = (*args[place][:number], args[place][max(0, number - 1)], *args[place][number:])
    return replace(loop, rounds=tuple(rounds), args=tuple(args), outputs=rounds[-1].outputs)


def _cuts(block: Block, indices: list[int]) -> list[tuple[int, list[list[Node]]]]:
    """Ways to cut the nodes into rounds: those that follow a layer belong to it, or those before it."""
    after = min(b - a for a, b in pairwise(indices))
    ways = []
    for before in range(after):
        starts = [i - before for i in indices]
        stop = min(indices[-1] + after - before, len(block.nodes))
        if starts[0] >= 0:
            bounds = [*starts, stop]
            ways.append((starts[0], [block.nodes[a:b] for a, b in pairwise(bounds)]))
    last = [block.nodes[a:b] for a, b in pairwise([*indices, indices[-1] + 1])]
    return [*ways, (indices[0], last)] if after > 1 else ways


def _list_of(node: Node) -> str | None:
    match = LAYER.match(node.name)
    return match["list"] if match else None


@dataclass
class _Column:
    """What the rounds take at one place: (round → value), and where the round before made it, if it did."""

    values: dict[int, Value]
    place: Place | None
    role: str


@dataclass
class _Rounds:
    """Rounds of a loop, aligned with each other.

    Attributes:
        problem: why they are no loop; "" if they are.
        nothing: gives what is handed from round to round and what the first one does not take: None before the loop.
    """

    block: Block
    name: str
    rounds: list[list[Node]]
    problem: str = ""
    columns: list[_Column] = field(default_factory=list)
    nothing: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = align(self.rounds, self._label)
        self.made: list[dict[Value, Place]] = [{} for _ in self.rounds]
        for i, slot in enumerate(self.slots):
            for number, node in slot.items():
                self.made[number].update({value: (i, j) for j, value in enumerate(node.outputs)})
        self.inside = {value for table in self.made for value in table}
        for i, slot in enumerate(self.slots):
            self._take(slot, i)
        carried = [column for column in self.columns if column.role == "carried"]
        if any(column.place not in made.values() for column in carried for made in self.made):
            self.problem = self.problem or "not every layer hands on the same tensors"
        outputs = {v for column in carried for v, place in self.made[-1].items() if place == column.place}
        if (self.inside - outputs) & self._needed_outside():
            self.problem = self.problem or "what comes behind needs more of a layer than the next layer does"
        for column in carried if not self.problem else ():
            if 0 not in column.values:
                self._begin_with_nothing(column)

    def _begin_with_nothing(self, column: _Column) -> None:
        """Let a column begin with None, which the first layer does not look at."""
        for number, value in column.values.items():
            called = (node.block for node in self.rounds[number] if node.block is not None and node.block.leaf is None)
            for block in (inner for outer in called for inner in blocks_in(outer)):
                block.optional |= {key for key, own in zip(block.keys, block.inputs, strict=True) if own is value}
        column.values[0] = Value(next(iter(column.values.values())).tensor)
        self.nothing.append(Node("nothing", "None", (), {}, (column.values[0],)))

    def _label(self, number: int, node: Node) -> Any:
        if _list_of(node) != self.name:
            return label(node, self.block, None)
        return "layer", len(node.outputs)

    def _take(self, slot: Slot, number: int) -> None:
        """Note what the nodes of a slot take from outside their rounds; a layer may give back what it is given."""
        taken = {number: self._operands(node) for number, node in slot.items()}
        for place in dict.fromkeys(place for operands in taken.values() for place in operands):
            there = {n: operands[place] for n, operands in taken.items() if place in operands}
            values = {n: value for n, value in there.items() if self.made[n].get(value, (number,))[0] >= number}
            if values:
                self._column(values)

    def _operands(self, node: Node) -> dict[Any, Value]:
        """The tensors that a node takes: those of a layer by name, as layers may take some of them only."""
        if _list_of(node) == self.name and node.block is not None and node.block.leaf is None:
            return dict(zip(node.block.keys, node.args, strict=True))
        return dict(enumerate(values_in((node.args, node.keywords))))

    def _column(self, values: dict[int, Value]) -> None:
        places = {n: self.made[n - 1].get(v) if n else None for n, v in values.items()}
        came_from = {place for n, place in places.items() if n}
        place = came_from.pop() if len(came_from) == 1 else None
        outer = not any(value in self.inside for value in values.values())
        if not outer and place is None:
            self.problem = self.problem or "a layer takes what is not of the layer just before it"
            return
        role = "carried" if not outer else "same" if len(set(values.values())) == 1 else "varying"
        for column in self.columns:
            shared = column.values.keys() & values.keys()
            fits = all(column.values[n] is values[n] for n in shared)
            if shared and fits and column.place == place:
                column.values |= values
                if column.role == "same" and len(set(column.values.values())) > 1:
                    column.role = "varying"
                return
        self.columns.append(_Column(values, place, role))

    def _needed_outside(self) -> set[Value]:
        inside = {id(node) for nodes in self.rounds for node in nodes}
        outside = [node for node in self.block.nodes if id(node) not in inside]
        return {*values_in([(node.args, node.keywords) for node in outside]), *self.block.outputs}

    def node(self) -> Node:
        """The loop."""
        carried = [column for column in self.columns if column.role == "carried"]
        rounds = []
        for number, nodes in enumerate(self.rounds):
            made = {place: value for value, place in self.made[number].items()}
            body = Block(self.block.path, self.block.module, nodes=nodes, names=self.block.names)
            body.inputs = tuple(self._at(column, number) for column in self.columns)
            body.keys = tuple(str(i) for i in range(len(self.columns)))
            body.outputs = tuple(made[column.place] for column in carried if column.place is not None)
            rounds.append(body)
            for node in nodes:
                if _list_of(node) == self.name:
                    node.name = f"{self.name}.*"
        args = tuple(
            tuple(self._at(column, n) for n in range(len(rounds))) if column.role == "varying" else self._at(column, 0)
            for column in self.columns
        )
        roles = tuple(column.role for column in self.columns)
        location = self.rounds[0][0].location
        return Node("loop", self.name, args, {}, rounds[-1].outputs, location, roles=roles, rounds=tuple(rounds))

    def _at(self, column: _Column, number: int) -> Value:
        """What a round gets; where it does not take it, what another does."""
        if number not in column.values and column.role == "carried":
            return next(value for value, place in self.made[number - 1].items() if place == column.place)
        return column.values.get(number) or next(iter(column.values.values()))
