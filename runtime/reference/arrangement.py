"""Puts a network's layers into an order in which they can be evaluated, with each loop as one node.

A TensorRT loop is not a list of layers: its boundary layers (trip limits, iterators, recurrences, outputs) name it, and
its body is whatever depends on its iterators and recurrences without passing through its outputs.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trtllm_port.runtime.network.schema import LayerRecord
from trtllm_port.runtime.reference.evaluators.errors import UnsupportedLayerError

STARTS = ("ITERATOR", "RECURRENCE")
BOUNDARY = ("TRIP_LIMIT", *STARTS, "LOOP_OUTPUT")


@dataclass(frozen=True)
class Loop:
    """A loop as one node: its boundary layers and its body in order."""

    name: str
    boundary: tuple[LayerRecord, ...]
    body: tuple[Node, ...]

    def of(self, kind: str) -> list[LayerRecord]:
        """The boundary layers of one type."""
        return [layer for layer in self.boundary if layer.type == kind]

    @property
    def layers(self) -> list[LayerRecord]:
        """All layers of the loop, those of inner loops too."""
        inner = (node.layers if isinstance(node, Loop) else [node] for node in self.body)
        return [*self.boundary, *(layer for layers in inner for layer in layers)]


Node = LayerRecord | Loop


def arrange(layers: Sequence[LayerRecord]) -> tuple[Node, ...]:
    """The layers as nodes, each after all that it reads from; otherwise in the order given.

    Raises:
        UnsupportedLayerError: layers depend on each other in a circle that is no loop.
    """
    boundaries: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        if layer.type in BOUNDARY:
            boundaries[layer.attributes["loop"]].append(index)
    bodies = {name: _reached(layers, indices) for name, indices in boundaries.items()}
    parents = {name: [n for n in bodies if n != name and bodies[n] & set(own)] for name, own in boundaries.items()}
    members = {name: set(boundaries[name]) | body for name, body in bodies.items()}
    for name, outer in parents.items():
        for parent in outer:
            members[parent] |= set(boundaries[name]) | bodies[name]
    nodes: dict[int, Node] = dict(enumerate(layers))
    for name in (n for n, outer in parents.items() if not outer):
        own = boundaries[name]
        inner = [layers[i] for i in sorted(members[name]) if i not in own]
        for index in members[name]:
            del nodes[index]
        nodes[min(members[name])] = Loop(name, tuple(layers[i] for i in own), arrange(inner))
    return _sorted([nodes[index] for index in sorted(nodes)])


def _reached(layers: Sequence[LayerRecord], boundary: Iterable[int]) -> set[int]:
    """The body of a loop: what its iterators and recurrences lead to, short of its outputs."""
    readers: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        for name in layer.inputs:
            if name is not None:
                readers[name].append(index)
    own = set(boundary)
    reached: set[int] = set()
    frontier = [index for index in own if layers[index].type in STARTS]
    while frontier:
        for name in layers[frontier.pop()].outputs:
            new = [index for index in readers[name] if index not in own and index not in reached]
            reached.update(new)
            frontier.extend(new)
    return reached


def reads(node: Node) -> set[str]:
    """The tensors that a node needs before it can start."""
    if not isinstance(node, Loop):
        return {name for name in node.inputs if name is not None}
    layers = node.layers
    inside = {name for layer in layers for name in layer.outputs}
    return {name for layer in layers for name in layer.inputs if name is not None} - inside


def _sorted(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Topological order; of the nodes that are ready, the first in the given order comes first."""
    outputs = [{name for layer in _layers(node) for name in layer.outputs} for node in nodes]
    producer = {name: index for index, names in enumerate(outputs) for name in names}
    needs = [{producer[name] for name in reads(node) if name in producer} for node in nodes]
    waiting: dict[int, list[int]] = defaultdict(list)
    for index, needed in enumerate(needs):
        for other in needed:
            waiting[other].append(index)
    missing = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for later in waiting[index]:
            missing[later] -= 1
            if not missing[later]:
                heapq.heappush(ready, later)
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise UnsupportedLayerError.of(_layers(stuck)[0], "inputs that depend on its own output")
    return tuple(order)


def _layers(node: Node) -> list[LayerRecord]:
    return node.layers if isinstance(node, Loop) else [node]
