"""Branches as text: `if condition:` around what only some instances compute, each result under one name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from trtllm_port.codegen.ir.expressions import Expression
from trtllm_port.codegen.ir.formatting import indent
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.solve.not_expressible import SometimesComputed
from trtllm_port.codegen.write.printing import Printer
from trtllm_port.codegen.write.variables import Variables


class BranchWriter:
    """Writes the branches of one `forward`.

    Args:
        variables: of the `forward`.
        printer: its expressions.
        write_nodes: appends the statements of a block to the lines.
    """

    def __init__(self, variables: Variables, printer: Printer, write_nodes: Callable[[Block], None]) -> None:
        self.variables = variables
        self.ranges = variables.ranges
        self.printer = printer
        self.write_nodes = write_nodes

    def write(self, node: Node, block: Block) -> None:
        """Append the lines of a branch to those of the `forward`, and let its results have names.

        Raises:
            Undecided: nothing in the config tells the sides apart.
            Untranslated, NotExpressible: as for other nodes.
        """
        branch = node.branch
        assert branch is not None
        variables, ranges = self.variables, self.ranges
        names = self._names(node, block)
        before, stop = dict(variables.names), ranges.ends[node]
        texts: list[list[str]] = []
        given = dict(before)
        for number, side in enumerate(ranges.sides[node]):
            outer, variables.lines, variables.names = variables.lines, [], dict(before)
            with self._within(node, number, names):
                self.write_nodes(side)
                self._hand_over(node, number, names)
            texts.append(variables.lines)
            given |= {value: name for value, name in variables.names.items() if value in node.outputs}
            variables.lines = outer
        if texts[0] == texts[1]:  # the sides differ in what a sub-module is
            variables.lines += texts[0]
        else:
            condition = self.printer.scope.condition(branch, node.location)
            variables.lines += _lines(condition, texts, self._otherwise(node, texts))
        kept = {value: name for value, name in before.items() if ranges.last_use.get(value, -1) > stop}
        results = {value: names.get(value, given.get(value)) for value in node.outputs}
        variables.names = {**kept, **{value: name for value, name in results.items() if name is not None}}

    def _otherwise(self, node: Node, texts: list[list[str]]) -> Expression | None:
        """The condition of the second side of a branch, where some instances take neither side."""
        assert node.branch is not None
        if node.branch.second is None or not texts[1]:
            return None
        guard = node.branch.second if texts[0] else tuple(taken is True for taken in node.branch.second)
        return self.printer.scope.condition(replace(node.branch, guard=guard), node.location)

    def _names(self, node: Node, block: Block) -> dict[Value, str]:
        """Names for what is one value or the other behind the branch."""
        variables, ranges, stop = self.variables, self.ranges, self.ranges.ends[node]
        assert node.branch is not None
        held = {name for value, name in variables.names.items() if ranges.last_use.get(value, -1) > stop}
        names: dict[Value, str] = {}
        for result, sources in zip(node.outputs, node.branch.results, strict=True):
            if result in sources or result not in ranges.last_use:
                continue
            if result in variables.forced:  # of a branch within a side: named behind the outer one
                names[result] = variables.forced[result]
                continue
            current = [variables.names[s] for s in sources if s in variables.names]
            candidates = variables.candidates(result, block)
            wanted = [name for name in current if name in candidates or not candidates] + candidates
            wanted += [variables.common[result]] if result in variables.common else []
            free = (name for name in wanted if name not in held and name not in names.values())
            name = next(free, "")
            number = 2
            while not name:
                numbered = f"{(wanted or ['x'])[0]}_{number}"
                name = "" if numbered in held or numbered in names.values() else numbered
                number += 1
            names[result] = name
        return names

    @contextmanager
    def _within(self, node: Node, number: int, names: dict[Value, str]) -> Iterator[None]:
        """Names and uses as they are on one side: what only the other side needs is not needed here."""
        variables, ranges = self.variables, self.ranges
        assert node.branch is not None
        last_use, protected, forced = dict(ranges.last_use), set(variables.protected), dict(variables.forced)
        begin, stop = ranges.positions[node], ranges.ends[node]
        sources = {r: pair[number] for r, pair in zip(node.outputs, node.branch.results, strict=True)}
        needed = {source for source in sources.values() if source is not None}
        side = ranges.sides[node][number]
        reads: dict[Value, int] = {}
        for one in side.nodes:
            if ranges.is_statement(one):
                reads.update(dict.fromkeys(ranges.reads(one), ranges.positions[one]))
        for value in variables.names:
            if begin <= ranges.last_use.get(value, -1) <= stop:
                ranges.last_use[value] = stop if value in needed else reads.get(value, begin - 1)
        variables.protected |= {value for value in variables.names if ranges.last_use.get(value, -1) > stop}
        made = {value for one in side.nodes for value in one.outputs}
        variables.forced |= {s: names[r] for r, s in sources.items() if r in names and s in made and s is not None}
        yield
        ranges.last_use, variables.protected, variables.forced = last_use, protected, forced

    def _hand_over(self, node: Node, number: int, names: dict[Value, str]) -> None:
        """Give what a side took from before the branch the name that it has behind."""
        variables = self.variables
        assert node.branch is not None
        for result, sources in zip(node.outputs, node.branch.results, strict=True):
            source = sources[number]
            if result not in names or source is None:
                continue
            if source not in variables.names:
                raise SometimesComputed
            if variables.names[source] != names[result]:
                variables.lines.append(f"{names[result]} = {variables.names[source]}")


def _lines(condition: Expression, texts: list[list[str]], otherwise: Expression | None) -> list[str]:
    """The statement; `otherwise` is the condition of the second side, if it is not that of all others."""
    first, second = texts
    if otherwise is not None:
        head = [f"if {condition.text}:", *indent(first)] if first else []
        return [*head, f"{'elif' if first else 'if'} {otherwise.text}:", *indent(second)]
    if not first:
        return [f"if {negated(condition.text)}:", *indent(second)]
    plain = [text[0].split(" = ", 1) if len(text) == 1 else ["", ""] for text in texts]
    if len(first) == len(second) == 1 and plain[0][0] == plain[1][0] and len(plain[0]) == len(plain[1]) == 2:
        line = f"{plain[0][0]} = {plain[0][1]} if {condition.text} else {plain[1][1]}"
        if len(line) <= 100 and " if " not in plain[1][1]:
            return [line]
    return [f"if {condition.text}:", *indent(first), *_otherwise(second)]


def _otherwise(lines: list[str]) -> list[str]:
    """`else:` with its lines; `elif` where they are one more choice."""
    if not lines:
        return []
    outer = [line for line in lines if not line.startswith(" ")]
    is_choice = lines[0].startswith("if ") and all(re.match(r"elif |else:", line) for line in outer[1:])
    return [f"el{lines[0]}", *lines[1:]] if is_choice else ["else:", *indent(lines)]


def merge_conditions(lines: list[str]) -> list[str]:
    """Statements of which those under the same condition, one after the other, stand under it together."""
    made: list[str] = []
    header = ""  # of the condition that the lines before are under
    for line in lines:
        if line.startswith("if ") and line == header:
            continue
        header = header if line.startswith(" ") else line if line.startswith("if ") else ""
        made.append(line)
    return made


def negated(condition: str) -> str:
    """`not condition`, as one writes it."""
    for positive, negative in ((" is not None", " is None"), (" == ", " != "), (" >= ", " < "), (" not in ", " in ")):
        for one, other in ((positive, negative), (negative, positive)):
            if condition.count(one) == 1 and " and " not in condition and " or " not in condition:
                return condition.replace(one, other)
    if condition.startswith("not ") and " and " not in condition and " or " not in condition:
        return condition.removeprefix("not ")
    return f"not {condition}" if " " not in condition else f"not ({condition})"
