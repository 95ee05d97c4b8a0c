"""The body of a `forward`: which values get a name, which name, and when a name is used again.

Values that HF's code held in a variable are statements here, under HF's name; all others become part of the expression
that uses them. A name is given again once its old value is no longer needed, as HF does (`hidden_states = …`); where HF
kept the old value under another name first (`residual = hidden_states`), so does the port.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from trtllm_port.codegen.ir.expressions import ATOM, Expression
from trtllm_port.codegen.ir.formatting import indent, is_name, literal, reference
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.rules import TRACE_DTYPE
from trtllm_port.codegen.write.branches import Branches
from trtllm_port.codegen.write.printing import INPUT_DTYPE, Printer, Untranslated
from trtllm_port.codegen.write.scope import RoundScope, Scope
from trtllm_port.codegen.write.shape_chains import join_lines

HOLDERS = frozenset(("_", "kwargs", "args", "self", INPUT_DTYPE, "batch_size", "seq_length", "num_slots", "num_tokens"))


@dataclass
class Body:
    """A printed `forward`.

    Attributes:
        parameters: names of the inputs, in order.
        outputs: how many tensors it returns.
    """

    parameters: list[str]
    lines: list[str]
    outputs: int
    printer: Printer


class Writer:
    """Writes the `forward` of one block.

    Args:
        scope: expressions for the class.
        preferred: names for values whatever HF's variable here: the cache, the model's inputs.
        common: for values that have no variable here, the name that they have elsewhere.
        reserved: names that must not be variables: imported functions.
    """

    def __init__(
        self, scope: Scope, preferred: dict[Value, str], common: dict[Value, str], reserved: Iterable[str]
    ) -> None:
        self.scope = scope
        self.preferred = preferred
        self.common = common
        self.reserved = set(reserved) | HOLDERS
        self.printer = Printer(scope, self._reference)
        self.lines: list[str] = []
        self.names: dict[Value, str] = {}  # what values are called now
        self.inlined: dict[Value, Node] = {}
        self.positions: dict[Node, int] = {}  # statements in the order of the text, those of loops included
        self.last_use: dict[Value, int] = {}
        self.loop_names: dict[Value, str] = {}
        self.loop_texts: dict[Value, str] = {}
        self.branches = Branches(self)
        self.grouped: dict[Value, Node] = {}  # what such arguments are → its maker
        self.unpacked: dict[str, list[Value]] = {}  # at the beginning of a round: what is taken apart → its parts
        self.groups: dict[Node, list[tuple[tuple[int, ...], tuple[Node, ...]]]] = {}  # arguments of loops, their makers
        self.sides: dict[Node, tuple[Block, Block]] = {}
        self.ends: dict[Node, int] = {}  # where the sides of branches end
        self.forced: dict[Value, str] = {}  # what a side of a branch gives, by the name that it has behind the branch
        self.protected: set[Value] = set()  # what keeps its name while a side of a branch is written

    def write(self, block: Block) -> Body:
        """The whole body.

        Raises:
            Untranslated, NotExpressible: see `Printer.expression`.
        """
        end = self._plan(block, 0)
        for value in block.outputs:
            for read in self._reads(self.inlined[value]) if value in self.inlined else (value,):
                self.last_use[read] = end
        parameters = [self._bind(value, block, -1) for value in block.inputs]
        self.printer.inputs = parameters
        self._nodes(block)
        returned = ", ".join(self._reference(value).text for value in block.outputs)
        self.lines.append(f"return {returned}")
        self.lines[:0] = self._asked_at_the_beginning(block, parameters)
        return Body(parameters, join_lines(self.lines), len(block.outputs), self.printer)

    def _asked_at_the_beginning(self, block: Block, parameters: list[str]) -> list[str]:
        """Sizes and the data type of the inputs, which are not the same any more once names are given again."""
        lines = [f"{name} = {text}" for name, text in sorted(self.printer.sizes.items())]
        if self.printer.casts_back:
            columns = [self.scope.inputs(key) for key in block.keys]
            in_model_dtype = [all(v is None or v.tensor.dtype == TRACE_DTYPE for v in column) for column in columns]
            source = next(
                (name for name, holds in zip(parameters, in_model_dtype, strict=True) if holds), "self.config"
            )
            lines.append(f"{INPUT_DTYPE} = {source}.dtype")
        return lines

    # which values are statements, and until where they are needed

    def _plan(self, block: Block, start: int, *, in_loop: bool = False) -> int:
        """Number the nodes from `start`; returns the next number."""
        uses = Counter(value for node in block.nodes for value in _uses(node))
        uses.update(block.outputs)
        named = {v for node in block.nodes for v, role in _named_arguments(node) if role != "varying"}
        named |= {*block.outputs} if in_loop else set()
        for node in block.nodes:
            if node.form in ("loop", "branch") or len(node.outputs) != 1 or uses[node.outputs[0]] != 1:
                continue
            value = node.outputs[0]  # a loop takes names; what differs between layers goes into a dict
            if value not in named and (block.outputs == (value,) or not self._candidates(value, block)):
                self.inlined[value] = node
        for node in block.nodes:
            self._group(node, block, uses)
        position = start
        for node in block.nodes:
            self.positions[node] = position
            if node.form == "loop" and node.block is not None:
                position = self._plan(node.block, position + 1, in_loop=True)
            elif node.branch is not None:
                for side in self._sides(node, block):
                    position = self._plan(side, position + 1, in_loop=True)
                self.ends[node] = position
            if self._is_statement(node):
                self.last_use.update(dict.fromkeys(self._kept_until(node), position))
            position += 1
        if in_loop:
            self.last_use.update(dict.fromkeys(block.outputs, position))
        for node in block.nodes:
            if node.form == "loop":
                self._plan_loop(node, block)
        return position

    def _is_statement(self, node: Node) -> bool:
        return not any(value in self.inlined or value in self.grouped for value in node.outputs)

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

    def _plan_loop(self, loop: Node, block: Block) -> None:
        """What a round hands to the next one has one name, before, in and after the loop."""
        assert loop.block is not None
        carried = [i for i, role in enumerate(loop.roles) if role == "carried"]
        for index, end, final in zip(carried, loop.block.outputs, loop.outputs, strict=True):
            names = self._candidates(final, block) or self._candidates(end, block) or ["hidden_states"]
            self.loop_names.update({end: names[0], final: names[0]})
            begin = loop.args[index]
            self.last_use.setdefault(begin, self.positions[loop])
            if self.last_use[begin] <= self._end_of(loop) and self._may_be_called(begin, names[0], block):
                self.loop_names[begin] = names[0]

    def _end_of(self, loop: Node) -> int:
        assert loop.block is not None
        return self.positions[loop.block.nodes[-1]] + 1

    def _may_be_called(self, value: Value, name: str, block: Block) -> bool:
        return name in self._candidates(value, block) or not self._candidates(value, block)

    def _kept_until(self, node: Node) -> Iterable[Value]:
        """What must keep its name until the end of a statement: for a loop not what its first round replaces."""
        if node.branch is not None:  # what its sides read is noted there
            return [value for i in (0, 1) for value in node.branch.of_side(i) if value in node.args]
        if node.form != "loop":
            return self._reads(node)
        carried = {value for value, role in _named_arguments(node) if role == "carried"}
        return [value for value in self._reads(node) if value not in carried]

    def _reads(self, node: Node) -> Iterable[Value]:
        for value in _mentions(node):
            maker = self.inlined.get(value)
            if node.form == "loop" and value in self.grouped:
                maker = self.grouped[value]
            if maker is not None:
                yield from self._reads(maker)
            else:
                yield value

    # names

    def _candidates(self, value: Value, block: Block) -> list[str]:
        """The names that HF's code here gave to a value; not those of containers that hold it."""
        if value in self.preferred:
            return [self.preferred[value]]
        found = [name for name in block.names.get(value, ()) if not name.endswith("[]")]
        return [name for name in found if name not in self.reserved and not keyword.iskeyword(name)]

    def _name(self, value: Value, block: Block, fallback: str) -> str:
        if value in self.forced:
            return self.forced[value]
        if value in self.loop_names:
            return self.loop_names[value]
        names = self._candidates(value, block)
        if names:
            return names[0]
        if value in self.common:
            return self.common[value]
        return fallback if fallback not in self.reserved else "x"

    def _bind(self, value: Value, block: Block, position: int, fallback: str = "x") -> str:
        """Give `value` its name at a statement; a value that still needs this name gets another one first."""
        for held in [held for held in self.names if self.last_use.get(held, -1) < position]:
            del self.names[held]
        name = self._name(value, block, fallback)
        holder = next((held for held, own in self.names.items() if own == name and held is not value), None)
        if holder is not None and self.last_use[holder] > position:
            taken = set(self.names.values())
            other = next((n for n in self._candidates(holder, block) if n not in taken), None)
            if other is not None and position >= 0 and holder not in self.protected:
                self.lines.append(f"{other} = {name}")
                self.names[holder] = other
            else:
                own = (n for n in self._candidates(value, block) if n not in taken)
                name = next(own, self._numbered(name))
        elif holder is not None:
            del self.names[holder]
        self.names[value] = name
        return name

    def _numbered(self, name: str) -> str:
        number = 2
        while f"{name}_{number}" in self.names.values():
            number += 1
        return f"{name}_{number}"

    def _reference(self, value: Value) -> Expression:
        if value in self.loop_texts:
            return Expression(self.loop_texts[value], (), ATOM, 0)
        if value in self.inlined:
            return self.printer.expression(self.inlined[value])
        return Expression(self.names[value], (), ATOM, 0)

    # statements

    def _nodes(self, block: Block) -> None:
        for node in block.nodes:
            if node.form == "loop":
                self._loop(node, block)
            elif node.branch is not None:
                self.branches.write(node, block)
            elif self._is_statement(node):
                text = self.printer.expression(node).text
                position = self.positions[node]
                live = [value in self.last_use for value in node.outputs]
                bound = [
                    self._bind(value, block, position, _fallback(node)) if is_live else "_"
                    for value, is_live in zip(node.outputs, live, strict=True)
                ]
                self.lines.append(f"{', '.join(bound)} = {text}")

    def _loop(self, loop: Node, block: Block) -> None:
        assert loop.block is not None
        for role, value in zip(loop.roles, loop.args, strict=True):
            if role == "carried" and self.names[value] != self._carried_name(loop, value):
                self.lines.append(f"{self._carried_name(loop, value)} = {self.names[value]}")
        rounds = self.scope.of_rounds(loop.instances)
        key = self._varying(loop, block, rounds)
        outer, self.lines = self.lines, []
        names = dict(self.names)
        for role, value, inner in zip(loop.roles, loop.args, loop.block.inputs, strict=True):
            if role == "carried":
                self.names[value] = self.names[inner] = self._carried_name(loop, value)
        for text, values in self.unpacked.items():
            bound = [self._bind(value, loop.block, self.positions[loop]) for value in values]
            self.lines.append(f"{', '.join(bound)} = {text}")
        self.unpacked.clear()
        self.printer.scope = rounds
        self._nodes(loop.block)
        self.printer.scope = self.scope
        self.lines = [*outer, _header(loop, key, rounds), *indent(self.lines)]
        self.names = {value: name for value, name in names.items() if self.last_use[value] > self.positions[loop]}
        self.names.update({value: self.loop_names[value] for value in loop.outputs})
        self.loop_texts.clear()

    def _carried_name(self, loop: Node, value: Value) -> str:
        carried = [arg for arg, role in zip(loop.args, loop.roles, strict=True) if role == "carried"]
        return self.loop_names[loop.outputs[carried.index(value)]]

    def _varying(self, loop: Node, block: Block, rounds: RoundScope) -> str | None:
        """Put what differs between layers into a dict by the elements of a config list; returns the list's key."""
        assert loop.block is not None
        groups = {places[0]: (places, nodes) for places, nodes in self.groups.get(loop, ())}
        together = {place for places, _ in groups.values() for place in places[1:]}
        key = None
        for place, choices in loop.choices.items():
            found = rounds.kinds(choices)
            if found is None or (key is not None and found[0] != key):
                raise Untranslated(loop, f"no list of the config tells apart what the layers of `{loop.name}` take")
            key, table = found
            if place in together:
                continue
            column = loop.args[place]
            containers = (n[:-2] for v in column for n in block.names.get(v, ()) if n.endswith("[]"))
            name = next(containers, f"{_singular(key)}_values")
            makers = [self.grouped.get(value) for value in column]
            texts = [
                (self._reference(value) if maker is None else self.printer.expression(maker)).text
                for value, maker in zip(column, makers, strict=True)
            ]
            entries = ", ".join(f"{literal(one)}: {texts[i]}" for one, i in table.items())
            self.lines.append(f"{name} = {{{entries}}}")
            places = groups[place][0] if place in groups else (place,)
            values = [loop.block.inputs[p] for p in places]
            if place in groups:
                self.unpacked[f"{name}[{_singular(key)}]"] = values
            else:
                self.loop_texts[values[0]] = f"{name}[{_singular(key)}]"
        return key


def _header(loop: Node, key: str | None, rounds: RoundScope) -> str:
    layer, layers = "layer", reference(loop.name)
    if key is not None:
        layer, layers = f"layer, {_singular(key)}", f"zip({layers}, self.config.{key}, strict=True)"
    if rounds.uses_layer_idx:
        layer, layers = f"layer_idx, {layer if key is None else f'({layer})'}", f"enumerate({layers})"
    return f"for {layer} in {layers}:"


def _mentions(node: Node) -> list[Value]:
    return [leaf for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Value)]


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
    return list(dict.fromkeys(_mentions(node))) if node.form in ("loop", "branch") else _mentions(node)


def _singular(key: str) -> str:
    one = key.removesuffix("s")
    return one if one != key and is_name(one) else f"{key}_item"


def _fallback(node: Node) -> str:
    """A name for a value that HF's code never named: after what makes it."""
    base = node.name.rpartition(".")[2]
    if node.form == "function":  # whose name is taken by the function
        return f"{base}_output"
    return base if base.isidentifier() and not keyword.iskeyword(base) else "x"
