"""Computations of which every instance has at most one, as one choice: `if`, `elif`, `else`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trtllm_port.codegen.ir.nodes import Branch, Node
from trtllm_port.codegen.ir.record import Value

Column = tuple[Value | None, ...]  # by instance


@dataclass
class Region:
    """Nodes that all instances have, or that only those of `guard` have, and what the others have instead.

    Attributes:
        either: instances for which the side does not matter.
        results: what is one value on the one side, and another on the other.
    """

    guard: frozenset[int]
    either: frozenset[int] = frozenset()
    sides: tuple[list[Node], list[Node]] = field(default_factory=lambda: ([], []))
    results: list[tuple[Value, Value | None, Value | None]] = field(default_factory=list)


@dataclass
class Chain:
    """Regions one after the other, each with one side, for instances of its own.

    Attributes:
        start, stop: the numbers of the regions; those from `start` to before `stop`.
        results: what is one value behind each region, and perhaps another where there is none of them.
    """

    start: int
    stop: int
    results: list[tuple[Value, Column]] = field(default_factory=list)


def find_chain(
    regions: Sequence[Region], stop: int, everybody: frozenset[int], values: Column
) -> tuple[Chain, Column] | None:
    """The longest chain that ends before `stop` and decides which of `values` there is, and what each region gives.

    None if there is none of two regions or more.
    """
    start, seen = stop, frozenset[int]()
    while start and _has_one_side(regions[start - 1], everybody) and not seen & regions[start - 1].guard:
        start -= 1
        seen |= regions[start].guard
    groups = [region.guard for region in regions[start:stop]]
    groups += [everybody - seen] if seen != everybody else []
    columns = [{values[i] for i in group} - {None} for group in groups]
    if stop - start < 2 or any(len(column) > 1 for column in columns):
        return None
    return Chain(start, stop), tuple(next(iter(column), None) for column in columns)


def _has_one_side(region: Region, everybody: frozenset[int]) -> bool:
    return region.guard != everybody and bool(region.sides[0]) and not region.sides[1] and not region.results


def chain_node(
    chain: Chain, regions: Sequence[Region], everybody: frozenset[int], used: set[Value], branch: Callable[..., Node]
) -> Node:
    """The choice, from the inside out.

    Args:
        regions: of the chain.
        used: values that are needed behind it.
        branch: makes a node of the guard, the nodes of both sides, and results.
    """
    made = [[v for node in region.sides[0] for v in node.outputs if v in used] for region in regions]
    covered = frozenset[int]().union(*(region.guard for region in regions))
    levels = list(regions) if covered != everybody else list(regions[:-1])
    rest = [] if covered != everybody else regions[-1].sides[0]
    others = [column[-1] for _, column in chain.results]
    for number in reversed(range(len(levels))):
        region = levels[number]
        results = [
            (result if number == 0 else Value(result.tensor), column[number], other)
            for (result, column), other in zip(chain.results, others, strict=True)
        ]
        escaping: list[tuple[Value, Value | None, Value | None]] = [(v, v, None) for v in made[number]]
        escaping += [(v, None, v) for later in made[number + 1 :] for v in later]
        before = frozenset[int]().union(*(level.guard for level in levels[:number]))
        guard = tuple(None if i in before else i in region.guard for i in sorted(everybody))
        node = branch(guard, (region.sides[0], rest), [*results, *escaping])
        rest, others = [node], [result for result, _, _ in results]
    return rest[0]


def branch_node(
    guard: tuple[bool | None, ...],
    sides: tuple[list[Node], list[Node]],
    results: list[tuple[Value, Value | None, Value | None]],
    paths: tuple[str, str],
    reads: Callable[[Node], list[Value]],
) -> Node:
    """A branch that takes all that its sides read and do not make themselves.

    Args:
        guard: see `Branch`.
        paths: see `Branch`.
        reads: what a node takes.
    """
    made = {value for side in sides for node in side for value in node.outputs}
    read = [value for side in sides for node in side for value in reads(node)]
    read += [value for _, *sources in results for value in sources if value is not None]
    args = tuple(value for value in dict.fromkeys(read) if value not in made)
    location = next((node.location for side in sides for node in side), None)
    branch = Branch(guard, sides, tuple((a, b) for _, a, b in results), paths)
    return Node("branch", "", args, {}, tuple(result for result, _, _ in results), location, branch=branch)
