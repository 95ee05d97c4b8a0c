"""Modules that are called several times for every token, each time with layers of the cache of their own.

Hugging Face tells such a module how far its layers are behind those of its first call. A port hands it a cache whose
layers begin there, so that every call computes the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch

from trtllm_port.codegen.ir.def_use import items
from trtllm_port.codegen.ir.module_paths import layer_number
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.foundation.words import words

OF_LAYERS = words("cache_update indexer_update cache_state")  # whose second argument is a layer's number


class RepeatedCalls:
    """Follows which part of the cache the modules of a trace use.

    Args:
        root: the trace's record.
        cache: the input that stands for the cache.

    Attributes:
        caches: what stands for it, or for a part of it.
    """

    def __init__(self, root: Call, cache: Value) -> None:
        self.counts = Counter(call.path for call in _calls(root))
        self.cache = cache
        self.caches = {cache}
        self.first: int | None = None  # layer of the part that is in use

    def enter(self, block: Block, call: Call) -> Value | None:
        """The part of the cache that a call made by a block uses; None if it uses that of the block."""
        found = {number - own for own, number in _layers(call)}
        alone = layer_number(call.path) is None and self.counts[call.path] > 1 and self.first is None
        if not alone or len(found) != 1:
            return None
        (self.first,) = found
        part = Value(torch.zeros(()))
        block.nodes.append(Node("cache", "beginning_at", (self.cache, self.first), {}, (part,), call.location))
        self.caches.add(part)
        return part

    def leave(self) -> None:
        """The call is over that used a part of its own."""
        self.first = None

    def operation(self, operation: Operation) -> Operation:
        """An operation with the number that its layer has in the part of the cache that is in use."""
        if not self.first or operation.name not in OF_LAYERS:
            return operation
        cache, layer, *rest = operation.args
        return replace(operation, args=(cache, layer - self.first, *rest))


def _calls(call: Call) -> Iterator[Call]:
    """A call and those in it."""
    yield call
    yield from (item for item in items(call) if isinstance(item, Call))


def _layers(call: Call) -> Iterator[tuple[int, int]]:
    """The layer that a module is in and the layer of the cache that it uses, for all modules in a call."""
    for one in _calls(call):
        own = layer_number(one.path)
        for item in one.body:
            if isinstance(item, Operation) and item.name in OF_LAYERS and own is not None:
                yield own, item.args[1]
