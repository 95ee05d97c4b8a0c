"""The body of a `forward`: a statement for every value that HF's code held in a variable, under HF's name.

All others become part of the expression that uses them.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from dataclasses import dataclass

from trtllm_port.codegen.ir.dtypes import TRACE_DTYPE
from trtllm_port.codegen.ir.expressions import ATOM, Expression
from trtllm_port.codegen.ir.formatting import indent, reference
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.solve.not_expressible import SometimesComputed
from trtllm_port.codegen.write.branches import BranchWriter
from trtllm_port.codegen.write.printing import INPUT_DTYPE, Printer, Untranslated
from trtllm_port.codegen.write.scope import RoundScope, Scope
from trtllm_port.codegen.write.shape_chains import join_lines
from trtllm_port.codegen.write.variables import Variables
from trtllm_port.foundation.quoting import is_name, literal

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


class ForwardWriter:
    """Writes the `forward` of one block.

    Args:
        scope: expressions for the class.
        preferred, common: see `Variables`.
        reserved: names that must not be variables: imported functions.
    """

    def __init__(
        self, scope: Scope, preferred: dict[Value, str], common: dict[Value, str], reserved: Iterable[str]
    ) -> None:
        self.scope = scope
        self.printer = Printer(scope, self._reference)
        self.variables = Variables(preferred, common, {*reserved, *HOLDERS})
        self.ranges = self.variables.ranges
        self.branches = BranchWriter(self.variables, self.printer, self._nodes)
        self.loop_texts: dict[Value, str] = {}
        self.unpacked: dict[str, list[Value]] = {}  # at the beginning of a round: what is taken apart → its parts

    def write(self, block: Block) -> Body:
        """The whole body.

        Raises:
            Untranslated, NotExpressible: see `Printer.expression`.
        """
        self.ranges.find(block)
        parameters = [self.variables.bind(value, block, -1) for value in block.inputs]
        self.printer.inputs = parameters
        self._nodes(block)
        returned = ", ".join(self._reference(value).text for value in block.outputs)
        lines = [*self._asked_at_the_beginning(block, parameters), *self.variables.lines, f"return {returned}"]
        return Body(parameters, join_lines(lines), len(block.outputs), self.printer)

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

    def _reference(self, value: Value) -> Expression:
        if value in self.loop_texts:
            return Expression(self.loop_texts[value], (), ATOM, 0)
        if value in self.ranges.inlined:
            return self.printer.expression(self.ranges.inlined[value])
        if value not in self.variables.names:
            raise SometimesComputed
        return Expression(self.variables.names[value], (), ATOM, 0)

    # statements

    def _nodes(self, block: Block) -> None:
        for node in block.nodes:
            if node.form == "loop":
                self._loop(node, block)
            elif node.branch is not None:
                self.branches.write(node, block)
            elif self.ranges.is_statement(node):
                text = self.printer.expression(node).text
                position = self.ranges.positions[node]
                live = [value in self.ranges.last_use for value in node.outputs]
                bound = [
                    self.variables.bind(value, block, position, _fallback(node)) if is_live else "_"
                    for value, is_live in zip(node.outputs, live, strict=True)
                ]
                self.variables.lines.append(f"{', '.join(bound)} = {text}")

    def _loop(self, loop: Node, block: Block) -> None:
        assert loop.block is not None
        variables, ranges = self.variables, self.ranges
        for role, value in zip(loop.roles, loop.args, strict=True):
            if role == "carried" and variables.names[value] != self._carried_name(loop, value):
                variables.lines.append(f"{self._carried_name(loop, value)} = {variables.names[value]}")
        rounds = self.scope.of_rounds(loop.instances)
        key = self._varying(loop, block, rounds)
        outer, variables.lines = variables.lines, []
        names = dict(variables.names)
        for role, value, inner in zip(loop.roles, loop.args, loop.block.inputs, strict=True):
            if role == "carried":
                variables.names[value] = variables.names[inner] = self._carried_name(loop, value)
        for text, values in self.unpacked.items():
            bound = [variables.bind(value, loop.block, ranges.positions[loop]) for value in values]
            variables.lines.append(f"{', '.join(bound)} = {text}")
        self.unpacked.clear()
        self.printer.scope = rounds
        self._nodes(loop.block)
        self.printer.scope = self.scope
        variables.lines = [*outer, _header(loop, key, rounds), *indent(variables.lines)]
        variables.names = {v: name for v, name in names.items() if ranges.last_use[v] > ranges.positions[loop]}
        variables.names.update({value: ranges.loop_names[value] for value in loop.outputs})
        self.loop_texts.clear()

    def _carried_name(self, loop: Node, value: Value) -> str:
        carried = [arg for arg, role in zip(loop.args, loop.roles, strict=True) if role == "carried"]
        return self.ranges.loop_names[loop.outputs[carried.index(value)]]

    def _varying(self, loop: Node, block: Block, rounds: RoundScope) -> str | None:
        """Put what differs between layers into a dict by the elements of a config list; returns the list's key."""
        assert loop.block is not None
        groups = {places[0]: (places, nodes) for places, nodes in self.ranges.groups.get(loop, ())}
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
            makers = [self.ranges.grouped.get(value) for value in column]
            texts = [
                (self._reference(value) if maker is None else self.printer.expression(maker)).text
                for value, maker in zip(column, makers, strict=True)
            ]
            entries = ", ".join(f"{literal(one)}: {texts[i]}" for one, i in table.items())
            self.variables.lines.append(f"{name} = {{{entries}}}")
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


def _singular(key: str) -> str:
    one = key.removesuffix("s")
    return one if one != key and is_name(one) else f"{key}_item"


def _fallback(node: Node) -> str:
    """A name for a value that HF's code never named: after what makes it."""
    base = node.name.rpartition(".")[2]
    if node.form == "function":  # whose name is taken by the function
        return f"{base}_output"
    return base if base.isidentifier() and not keyword.iskeyword(base) else "x"
