"""What every block takes from outside and hands out: without what nobody needs, and alike for all layers."""

from __future__ import annotations

from collections.abc import Iterator

from trtllm_port.codegen.folding import LAYER
from trtllm_port.codegen.instances import role
from trtllm_port.codegen.ir import Block, Node
from trtllm_port.codegen.recorder import Value, leaves

Taken = dict[tuple[str, str], frozenset[str]]  # role → names of the inputs that all blocks of the role get


def walk(block: Block) -> Iterator[Block]:
    yield block
    for item in block.nodes:
        if item.block is not None and item.block.leaf is None:
            yield from walk(item.block)


def _kind(block: Block) -> tuple[str, str]:
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


def taken_by_some(blocks: list[Block]) -> Taken:
    """What is taken by some but not by all of the modules that have the same place in different layers."""
    found: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        found.setdefault(_kind(block), []).append(block)
    taken = {kind: frozenset(key for block in alike for key in block.keys) for kind, alike in found.items()}
    return {
        kind: keys
        for kind, keys in taken.items()
        if any(key in block.signature and key not in block.keys for block in found[kind] for key in keys)
    }


def remove_dead(block: Block, taken: Taken) -> None:
    """Keep what the block's outputs need.

    The blocks of its calls lose outputs that nobody uses, but not the first, by which modules are compared with HF's.
    """
    live = set(block.outputs)
    kept: list[Node] = []
    for item in reversed(block.nodes):
        if not live.intersection(_defined(item)):
            continue
        child = item.block
        if child is not None and child.leaf is None:
            needed = [value for value in _defined(item) if value in live or value in child.outputs[:1]]
            order = {value: i for i, value in enumerate(child.outputs)}
            child.outputs = tuple(sorted(needed, key=lambda value: order.get(value, len(order))))
            remove_dead(child, taken)
            item.outputs = child.outputs
            live.update(_free(child, taken))
        live.update(leaf for leaf in leaves((item.args, item.keywords)) if isinstance(leaf, Value))
        kept.append(item)
    block.nodes = kept[::-1]


def _defined(item: Node) -> list[Value]:
    """All values that come to be in a node, also those that a block does not return."""
    if item.block is None or item.block.leaf is not None:
        return list(item.outputs)
    return [value for inner in item.block.nodes for value in _defined(inner)]


def _free(block: Block, taken: Taken) -> list[Value]:
    """Values that a block takes from outside, in order of first use, and those that others in its place take."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}
    for item in block.nodes:
        inner = _free(item.block, taken) if item.block is not None and item.block.leaf is None else []
        for value in [*(leaf for leaf in leaves((item.args, item.keywords)) if isinstance(leaf, Value)), *inner]:
            if value not in defined:
                free[value] = None
        defined.update(_defined(item))
    free.update({value: None for value in block.outputs if value not in defined})
    keys = taken.get(_kind(block), frozenset())
    free.update({value: None for key, value in block.signature.items() if key in keys})
    return list(free)


def find_inputs(block: Block, cache: Value, taken: Taken) -> None:
    """Fix the inputs of every block and the arguments of every call, ordered as in the signature of HF's `forward`.

    What HF passes otherwise comes behind, and the cache at the end.
    """
    names = {value: name for name, value in block.signature.items()}
    order = {value: i for i, value in enumerate(names)}
    order[cache] = len(order) + 1
    block.inputs = tuple(sorted(_free(block, taken), key=lambda value: order.get(value, len(names))))
    others = iter(range(len(block.inputs)))
    block.keys = tuple("cache" if v is cache else names[v] if v in names else f"{next(others)}" for v in block.inputs)
    for item in block.nodes:
        if item.block is not None and item.block.leaf is None:
            find_inputs(item.block, cache, taken)
            item.args = item.block.inputs
