"""Which nodes of blocks that differ are the same computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

from trtllm_port.codegen.ir.nodes import Node

Slot = dict[int, Node]  # number of a block → its node at this place


def align(blocks: Sequence[Sequence[Node]], label: Callable[[int, Node], Any]) -> list[Slot]:
    """The nodes of all blocks in one order, each with those that it is equal to.

    Args:
        label: (number of a block, node) → what equal nodes have in common.
    """
    slots = [{0: node} for node in blocks[0]]
    labels = [label(0, node) for node in blocks[0]]
    for number, nodes in enumerate(blocks[1:], 1):
        own = [label(number, node) for node in nodes]
        merged: list[Slot] = []
        merged_labels: list[Any] = []
        for tag, a, b, c, d in SequenceMatcher(None, labels, own, autojunk=False).get_opcodes():
            if tag == "equal":
                merged += [{**slot, number: node} for slot, node in zip(slots[a:b], nodes[c:d], strict=True)]
                merged_labels += labels[a:b]
            else:
                merged += [*slots[a:b], *({number: node} for node in nodes[c:d])]
                merged_labels += [*labels[a:b], *own[c:d]]
        slots, labels = merged, merged_labels
    return slots
