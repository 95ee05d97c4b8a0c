"""What every block takes from outside and hands out: without what nobody needs, and alike for all layers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.ir.structure import role
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.lower.loop_rolling import LAYER

Kind = tuple[str, str]


@dataclass
class Interfaces:
    """What all blocks of a kind take and return, as some of them need it.

    Attributes:
        taken: kind → names of the inputs that all its blocks get.
        returned: kind → which of the tensors that HF's `forward` returns all its blocks hand out.
    """

    taken: dict[Kind, frozenset[str]] = field(default_factory=dict)
    returned: dict[Kind, frozenset[int]] = field(default_factory=dict)

    def learn(self, blocks: Iterable[Block]) -> bool:
        """Take note of what some blocks need and others of their kind do without; returns whether that is new."""
        alike: dict[Kind, list[Block]] = {}
        for block in blocks:
            alike.setdefault(_kind(block), []).append(block)
        found = Interfaces(_taken_by_some(alike), _returned_by_some(alike))
        known = all(keys <= self.taken.get(kind, frozenset()) for kind, keys in found.taken.items())
        known &= all(places <= self.returned.get(kind, frozenset()) for kind, places in found.returned.items())
        self.taken |= found.taken
        self.returned |= found.returned
        return not known


def _kind(block: Block) -> Kind:
    """What modules take the same inputs: those of one place and class, and the layers of a list, of whatever class."""
    path, name = role(block)
    return path, "" if LAYER.match(block.path) else name


def complete_signatures(blocks: list[Block]) -> None:
    """Where some layers are given a tensor and others None, a mask, say, as well give it to all."""
    made = {value for block in blocks if LAYER.match(block.path) for item in block.nodes for value in _defined(item)}
    found: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        if LAYER.match(block.path):
            found.setdefault(_kind(block), []).append(block)
    for alike in found.values():
        longest = max((block.signature for block in alike), key=len)
        given = {k: v for block in reversed(alike) for k, v in block.signature.items() if v not in made}
        for block in alike:
            known = {**given, **block.signature}
            names = [name for name in longest if name in known]
            block.signature = {name: known[name] for name in dict.fromkeys([*names, *block.signature])}


def _taken_by_some(alike: dict[Kind, list[Block]]) -> dict[Kind, frozenset[str]]:
    """What is taken by some but not by all of the modules that have the same place in different layers."""
    taken = {kind: frozenset(key for block in blocks for key in block.keys) for kind, blocks in alike.items()}
    return {
        kind: keys
        for kind, keys in taken.items()
        if any(key in block.signature and key not in block.keys for block in alike[kind] for key in keys)
    }


def _returned_by_some(alike: dict[Kind, list[Block]]) -> dict[Kind, frozenset[int]]:
    """The same for what they return: some layers may hand on what they were given, or what nobody takes of them."""
    found = {kind: [_returned(block) for block in blocks] for kind, blocks in alike.items()}
    return {kind: frozenset().union(*places) for kind, places in found.items() if any(p != places[0] for p in places)}


def _returned(block: Block) -> set[int]:
    """Which of the tensors that HF's `forward` returns a block hands out."""
    return {place for place, value in enumerate(block.returned) if value in block.outputs}


def eliminate_dead_code(block: Block, alike: Interfaces) -> None:
    """Keep what the block's outputs need.

    The blocks of its calls lose outputs that nobody uses, but not the first, by which modules are compared with HF's,
    nor those that others of their kind hand out.
    """
    live = set(block.outputs)
    kept: list[Node] = []
    for item in reversed(block.nodes):
        if not live.intersection(_defined(item)):
            continue
        child = item.block
        if child is not None and child.leaf is None:
            places = alike.returned.get(_kind(child), frozenset())
            wanted = [value for place, value in enumerate(child.returned) if place in places]
            made = [value for value in _defined(item) if value in live or value in child.outputs[:1]]
            needed = dict.fromkeys([*made, *wanted])
            order = {value: i for i, value in enumerate(child.outputs)}
            child.outputs = tuple(sorted(needed, key=lambda value: order.get(value, len(order))))
            eliminate_dead_code(child, alike)
            item.outputs = child.outputs
            live.update(_free(child, alike))
        live.update(leaf for leaf in leaves((item.args, item.keywords)) if isinstance(leaf, Value))
        kept.append(item)
    block.nodes = kept[::-1]


def _defined(item: Node) -> list[Value]:
    """All values that come to be in a node, also those that a block does not return."""
    if item.block is None or item.block.leaf is not None:
        return list(item.outputs)
    return [value for inner in item.block.nodes for value in _defined(inner)]


def _free(block: Block, alike: Interfaces) -> list[Value]:
    """Values that a block takes from outside, in order of first use, and those that others in its place take."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}
    for item in block.nodes:
        inner = _free(item.block, alike) if item.block is not None and item.block.leaf is None else []
        for value in [*(leaf for leaf in leaves((item.args, item.keywords)) if isinstance(leaf, Value)), *inner]:
            if value not in defined:
                free[value] = None
        defined.update(_defined(item))
    free.update({value: None for value in block.outputs if value not in defined})
    keys = alike.taken.get(_kind(block), frozenset())
    free.update({value: None for key, value in block.signature.items() if key in keys})
    return list(free)


def find_inputs(block: Block, caches: Collection[Value], alike: Interfaces) -> None:
    """Fix the inputs of every block and the arguments of every call, ordered as in the signature of HF's `forward`.

    What HF passes otherwise comes behind, and the cache at the end.
    """
    names = {value: name for name, value in block.signature.items()}
    order = {value: i for i, value in enumerate(names)}
    order.update(dict.fromkeys(caches, len(order) + 1))
    block.inputs = tuple(sorted(_free(block, alike), key=lambda value: order.get(value, len(names))))
    others = iter(range(len(block.inputs)))
    block.keys = tuple("cache" if v in caches else names[v] if v in names else f"{next(others)}" for v in block.inputs)
    for item in block.nodes:
        if item.block is not None and item.block.leaf is None:
            find_inputs(item.block, caches, alike)
            item.args = item.block.inputs
