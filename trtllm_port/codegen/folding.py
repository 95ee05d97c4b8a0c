"""Calls of the layers of one list, one after the other, as one loop."""

from __future__ import annotations

import re
from itertools import pairwise

from trtllm_port.codegen.ir import Block, Node
from trtllm_port.codegen.recorder import Value, leaves
from trtllm_port.errors import UnsupportedModelError

LAYER = re.compile(r"^(?P<list>\w+(?:\.\w+)*)\.(?P<index>\d+)$")


def fold(block: Block, layers: int) -> None:
    """Replace the calls of `layers.0`, `layers.1`, … in a block, and in the blocks it calls, by a node "loop".

    Args:
        block: changed in place.
        layers: how many decoder layers the model has; other lists of modules (experts, say) need not be loops.

    Raises:
        UnsupportedModelError: the rounds of the decoder layers differ in what surrounds the layers' calls.
    """
    for node in block.nodes:
        if node.block is not None and node.block.leaf is None:
            fold(node.block, layers)
    starts = [i for i, node in enumerate(block.nodes) if node.form == "call" and LAYER.match(node.name)]
    lists = dict.fromkeys(LAYER.match(block.nodes[i].name)["list"] for i in starts)  # type: ignore[index]
    for name in lists:
        _fold_list(block, name, layers)


def _fold_list(block: Block, name: str, layers: int) -> None:
    indices = [i for i, node in enumerate(block.nodes) if node.form == "call" and _list_of(node) == name]
    numbers = [int(block.nodes[i].name.rpartition(".")[2]) for i in indices]
    if len(indices) < 2 or numbers != list(range(len(numbers))):
        return
    size = indices[1] - indices[0]
    rounds = [block.nodes[i : i + size] for i in indices]
    gaps = {b - a for a, b in pairwise(indices)}
    loop = _loop(block, name, rounds) if gaps == {size} and len(rounds[-1]) == size else None
    if loop is not None:
        block.nodes[indices[0] : indices[-1] + size] = [loop]
    elif len(numbers) == layers:
        raise UnsupportedModelError(
            f"`{block.class_name}` does not treat all of `{name}` alike, which the generator cannot express",
            hint="write this part by hand: `trtllm-port new --blank NAME`",
        )


def _list_of(node: Node) -> str | None:
    match = LAYER.match(node.name)
    return match["list"] if match else None


def _loop(block: Block, name: str, rounds: list[list[Node]]) -> Node | None:
    """The loop whose body is the first round, or None if the rounds are not alike."""
    places = [_places(nodes) for nodes in rounds]  # per round: value → (node, output) that made it
    makers = [{place: value for value, place in table.items()} for table in places]
    taken = [_taken(nodes) for nodes in rounds]
    if any(len(values) != len(taken[0]) for values in taken):
        return None
    inputs: dict[tuple[Value, ...], str] = {}
    carried: dict[tuple[Value, ...], tuple[int, int]] = {}
    for column in zip(*taken, strict=True):
        own = [places[i].get(value) for i, value in enumerate(column)]
        if own[0] is not None and own == [own[0]] * len(own):
            continue  # made in the same round
        came_from = {places[i].get(value) for i, value in enumerate(column[1:])}
        place = came_from.pop() if len(came_from) == 1 else None
        if len(set(column)) == 1:
            inputs[column] = "same"
        elif place is not None:
            inputs[column] = "carried"
            carried[column] = place
        elif not any(value in table for value in column for table in places):
            inputs[column] = "varying"
        else:
            return None
    outputs = tuple(makers[-1][place] for place in carried.values())
    inside = {value for table in places for value in table}
    if (inside - set(outputs)) & _needed_outside(block, rounds):
        return None
    body = Block(block.path, block.module, nodes=rounds[0], names=block.names)
    body.inputs = tuple(column[0] for column in inputs)
    body.outputs = tuple(makers[0][place] for place in carried.values())
    for node in rounds[0]:
        if _list_of(node) == name:
            node.name = f"{name}.*"
    args = tuple(column if role == "varying" else column[0] for column, role in inputs.items())
    location = rounds[0][0].location
    return Node("loop", name, args, {}, outputs, location, block=body, roles=tuple(inputs.values()))


def _places(nodes: list[Node]) -> dict[Value, tuple[int, int]]:
    return {value: (i, j) for i, node in enumerate(nodes) for j, value in enumerate(node.outputs)}


def _needed_outside(block: Block, rounds: list[list[Node]]) -> set[Value]:
    inside = {id(node) for nodes in rounds for node in nodes}
    outside = [node for node in block.nodes if id(node) not in inside]
    return {*_taken(outside), *block.outputs}


def _taken(nodes: list[Node]) -> list[Value]:
    return [leaf for node in nodes for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Value)]
