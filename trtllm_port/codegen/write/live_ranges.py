"""Which values of a `forward` are statements of their own, and until which statement each of them is needed.

A value that HF's code held in no variable, and that one node takes, becomes part of that node's expression.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from trtllm_port.codegen.ir.nodes import Block, Node, values_in
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.ir.trees import leaves

Candidates = Callable[[Value, Block], list[str]]


class LiveRanges:
    """The statements of one `forward`, in the order of its text.

    Args:
        candidates: the names that HF's code in a block gave to a value.

    Attributes:
        inlined: value → the node that makes it, as part of the expression that takes it.
        positions: the number of each node, those in loops and branches included.
        ends: where the sides of branches end.
        last_use: value → the number of the last statement that takes it.
        sides: the sides of branches, each as a block.
        groups: of loops: arguments that are together all outputs of some nodes, and these, one for each kind of layer.
        grouped: what such arguments are → its maker.
        loop_names: what a round hands to the next one → its one name, before, in and after the loop.
    """

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.inlined: dict[Value, Node] = {}
        self.positions: dict[Node, int] = {}
        self.ends: dict[Node, int] = {}
        self.last_use: dict[Value, int] = {}
        self.sides: dict[Node, tuple[Block, Block]] = {}
        self.groups: dict[Node, list[tuple[tuple[int, ...], tuple[Node, ...]]]] = {}
        self.grouped: dict[Value, Node] = {}
        self.loop_names: dict[Value, str] = {}

    def find(self, block: Block) -> None:
        """Number the statements of a whole `forward`, and find out until when its values are needed."""
        end = self._number(block, 0)
        for value in block.outputs:
            for read in self.reads(self.inlined[value]) if value in self.inlined else (value,):
                self.last_use[read] = end

    def is_statement(self, node: Node) -> bool:
        """Whether a node is no part of another one's expression."""
        return not any(value in self.inlined or value in self.grouped for value in node.outputs)

    def reads(self, node: Node) -> Iterable[Value]:
        """What the expression of a node takes, by name."""
        for value in values_in((node.args, node.keywords)):
            maker = self.inlined.get(value)
            if node.form == "loop" and value in self.grouped:
                maker = self.grouped[value]
            if maker is not None:
                yield from self.reads(maker)
            else:
                yield value

    def _number(self, block: Block, start: int, *, inner: bool = False) -> int:
        """Number the nodes from `start`; returns the next number."""
        uses = Counter(value for node in block.nodes for value in _uses(node))
        uses.update(block.outputs)
        self._inline(block, uses, inner=inner)
        for node in block.nodes:
            self._group(node, block, uses)
        position = start
        for node in block.nodes:
            self.positions[node] = position
            if node.form == "loop" and node.block is not None:
                position = self._number(node.block, position + 1, inner=True)
            elif node.branch is not None:
                for side in self._sides(node, block):
                    position = self._number(side, position + 1, inner=True)
                self.ends[node] = position
            if self.is_statement(node):
                self.last_use.update(dict.fromkeys(self._kept_until(node), position))
            position += 1
        if inner:
            self.last_use.update(dict.fromkeys(block.outputs, position))
        for node in block.nodes:
            if node.form == "loop":
                self._name_carried(node, block)
        return position

    def _inline(self, block: Block, uses: Counter[Value], *, inner: bool) -> None:
        """Note what is part of an expression; `inner`: the block is of a loop or a side, which hands on by name."""
        named = {v for node in block.nodes for v, role in _named_arguments(node) if role != "varying"}
        named |= {*block.outputs} if inner else set()
        for node in block.nodes:
            if node.form in ("loop", "branch") or len(node.outputs) != 1 or uses[node.outputs[0]] != 1:
                continue
            value = node.outputs[0]  # a loop takes names; what differs between layers goes into a dict
            if value not in named and (block.outputs == (value,) or not self.candidates(value, block)):
                self.inlined[value] = node

    def _group(self, loop: Node, block: Block, uses: Counter[Value]) -> None:
        """Note what differs between the layers of a loop and is all outputs of nodes that nobody else needs."""
        makers = {value: node for node in block.nodes if len(node.outputs) > 1 for value in node.outputs}
        for place, choices in loop.choices.items():
            nodes = tuple(makers.get(value) for value in loop.args[place])
            first = nodes[0]
            if first is None or any(place in group for group, _ in self.groups.get(loop, ())):
                continue
            columns = list(zip(*(node.outputs if node is not None else () for node in nodes), strict=False))
            places = [
                p for column in columns for p, own in loop.choices.items() if loop.args[p] == column and own == choices
            ]
            alone = all(uses[value] == 1 for column in columns for value in column)
            if len(places) == len(columns) == len(first.outputs) and alone and None not in nodes:
                self.groups.setdefault(loop, []).append((tuple(places), tuple(n for n in nodes if n is not None)))
                self.grouped.update({value: node for node in nodes if node is not None for value in node.outputs})

    def _sides(self, node: Node, block: Block) -> tuple[Block, Block]:
        """The sides of a branch, each with what is used of it behind."""
        if node not in self.sides:
            assert node.branch is not None
            first, second = (
                replace(block, nodes=nodes, outputs=node.branch.of_side(i)) for i, nodes in enumerate(node.branch.sides)
            )
            self.sides[node] = first, second
        return self.sides[node]

    def _name_carried(self, loop: Node, block: Block) -> None:
        """What a round hands to the next one has one name, before, in and after the loop."""
        assert loop.block is not None
        carried = [i for i, role in enumerate(loop.roles) if role == "carried"]
        for index, end, final in zip(carried, loop.block.outputs, loop.outputs, strict=True):
            names = self.candidates(final, block) or self.candidates(end, block) or ["hidden_states"]
            self.loop_names.update({end: names[0], final: names[0]})
            begin = loop.args[index]
            self.last_use.setdefault(begin, self.positions[loop])
            if self.last_use[begin] <= self._end_of(loop) and self._may_be_called(begin, names[0], block):
                self.loop_names[begin] = names[0]

    def _end_of(self, loop: Node) -> int:
        assert loop.block is not None
        return self.positions[loop.block.nodes[-1]] + 1

    def _may_be_called(self, value: Value, name: str, block: Block) -> bool:
        return name in self.candidates(value, block) or not self.candidates(value, block)

    def _kept_until(self, node: Node) -> Iterable[Value]:
        """What must keep its name until the end of a statement: for a loop not what its first round replaces."""
        if node.branch is not None:  # what its sides read is noted there
            return [value for i in (0, 1) for value in node.branch.of_side(i) if value in node.args]
        if node.form != "loop":
            return self.reads(node)
        carried = {value for value, role in _named_arguments(node) if role == "carried"}
        return [value for value in self.reads(node) if value not in carried]


def _named_arguments(node: Node) -> list[tuple[Value, str]]:
    """What a loop or a branch takes, each with its role in the loop; nothing for other nodes."""
    if node.form == "branch":
        return [(value, "same") for value in node.args]
    if node.form != "loop":
        return []
    pairs = zip(node.args, node.roles, strict=True)
    return [(leaf, role) for arg, role in pairs for leaf in leaves(arg) if isinstance(leaf, Value)]


def _uses(node: Node) -> list[Value]:
    """What a node takes; a loop takes what differs between layers once, however many layers there are."""
    taken = list(values_in((node.args, node.keywords)))
    return list(dict.fromkeys(taken)) if node.form in ("loop", "branch") else taken
