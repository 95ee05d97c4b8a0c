"""Layers that take the keys and values of an earlier layer: in the port they ask the cache for them.

Hugging Face hands such tensors from layer to layer. A port's cache has them already, and a loop over layers stays one.
"""

from __future__ import annotations

from typing import Any

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Location, Value
from trtllm_port.codegen.ir.trees import map_structure

NO_KINDS = ""  # instead of a config key: the last layer with keys and values, whatever its kind


class SharedCaches:
    """What the layers of a trace have put into the cache so far, and who takes it.

    Args:
        cache: the input that stands for the cache.
        config: the sample's keys and values.
    """

    def __init__(self, cache: Value, config: dict[str, Any]) -> None:
        self.cache = cache
        self.kinds = {key: value for key, value in config.items() if isinstance(value, list) and _are_names(value)}
        self.layers: list[int] = []
        self._made: dict[Value, tuple[Block, int, tuple[Value, ...]]] = {}  # value → who made it, for which layer
        self._taken: dict[tuple[Block, int], dict[Value, Value]] = {}

    def note(self, block: Block, node: Node) -> None:
        """Take note of the keys and values that a node of a block gives, if it is an update of the cache."""
        if node.form == "cache" and node.name == "update" and type(node.args[1]) is int:
            self.layers.append(node.args[1])
            self._made.update(dict.fromkeys(node.outputs, (block, node.args[1], node.outputs)))

    def tree(self, block: Block, tree: Any, location: Location | None) -> Any:
        """`tree` with what the block asks the cache for in place of what another block has put there."""

        def own(leaf: Any) -> Any:
            found = self._made.get(leaf) if isinstance(leaf, Value) else None
            if found is None or found[0] is block or type(found[0].module) is not type(block.module):
                return leaf
            key = block, found[1]
            if key not in self._taken:
                self._taken[key] = self._ask(block, found[1], found[2], location)
            return self._taken[key][leaf]

        return map_structure(own, tree)

    def _ask(
        self, block: Block, layer: int, values: tuple[Value, ...], location: Location | None
    ) -> dict[Value, Value]:
        outputs = tuple(Value(value.tensor) for value in values)
        number = getattr(block.module, "layer_idx", None)
        keywords = {"kinds": self._telling(layer, number)}
        block.nodes.append(Node("cache", "shared", (self.cache, number), keywords, outputs, location))
        return dict(zip(values, outputs, strict=True))

    def _telling(self, layer: int, number: int | None) -> frozenset[str]:
        """The config's lists by whose kinds `layer` is the last one of the kind of layer `number`."""
        last = {NO_KINDS: self.layers[-1]}
        for key, kinds in self.kinds.items():
            if number is not None and number < len(kinds) and max(self.layers) < len(kinds):
                alike = [one for one in self.layers if kinds[one] == kinds[number]]
                last |= {key: alike[-1]} if alike else {}
        return frozenset(key for key, found in last.items() if found == layer)

    def rename(self, block: Block) -> None:
        """Give what the block asks for the names that it has there."""
        for (owner, _), taken in self._taken.items():
            for value, own in taken.items() if owner is block else ():
                block.names[own] = block.names.pop(value, [])


def _are_names(kinds: list[Any]) -> bool:
    return all(isinstance(kind, str) for kind in kinds)
