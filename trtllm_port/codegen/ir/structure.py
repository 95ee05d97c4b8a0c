"""What blocks and nodes have in common that compute the same, or that may do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from trtllm_port.codegen.ir.module_paths import of_any_layer
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Attribute, Literal, Value

T = TypeVar("T")
_numbers: dict[Any, int] = {}  # structure → its number


def kept(function: Callable[[Block], T]) -> Callable[[Block], T]:
    """A function of lowered blocks, which do not change any more, with its results kept.

    Every change of a key of the config asks for those of all blocks once more.
    """
    known: WeakKeyDictionary[Block, T] = WeakKeyDictionary()

    @wraps(function)
    def once(block: Block) -> T:
        if block not in known:
            known[block] = function(block)
        return known[block]

    return once


def role(block: Block) -> tuple[str, str]:
    """A module's name with its layer's number left open, and its class: what variants of one class share."""
    return of_any_layer(block.path), block.class_name


def relative_path(block: Block, attribute: Attribute) -> str | None:
    """An attribute's name as seen from a block's module, or None if it belongs to another part of the model."""
    prefix = f"{block.path}." if block.path else ""
    return attribute.path[len(prefix) :] if attribute.path.startswith(prefix) else None


def structure(block: Block, *, deep: bool = True) -> Any:
    """What is equal in blocks that compute the same: everything but Python values.

    Args:
        deep: look into the blocks that it calls, too.
    """
    order = _order(block)
    return (
        block.class_name,
        block.keys,
        tuple(_node_structure(node, order, block, deep) for node in block.nodes),
        tuple(order[value] for value in block.outputs),
    )


@kept
def structure_number(block: Block) -> int:
    """A number that blocks have in common whose `structure` is equal, whatever the blocks are that they call."""
    return _numbers.setdefault(structure(block, deep=False), len(_numbers))


def _node_structure(node: Node, order: Mapping[Value, int], block: Block, deep: bool) -> Any:
    inner: Any = None
    if node.block is not None:
        inner = node.block.leaf.kind if node.block.leaf else structure(node.block) if deep else node.block.keys
    rounds = tuple(structure(one, deep=deep) for one in node.rounds)
    shape = _argument_structure((node.args, node.keywords), block, order)
    return node.form, node.name, shape, len(node.outputs), node.roles, inner, rounds


def label(node: Node, block: Block, keys: tuple[str, ...] | None) -> Any:
    """What is equal in nodes of two blocks that may be the same computation, on other values.

    Args:
        keys: of a call of a class of the port: what the class takes.
    """
    inner: Any = keys
    if node.block is not None and node.block.leaf is not None:
        inner = node.block.leaf.kind
    shape = None if node.form in ("call", "loop") else _argument_structure((node.args, node.keywords), block)
    roles = tuple(one == "carried" for one in node.roles)
    return node.form, node.name, shape, len(node.outputs), roles, inner, str(node.location)


def _argument_structure(tree: Any, block: Block, order: Mapping[Value, int] | None = None) -> Any:
    """The form of arguments; values by their `order`, or any for any other."""
    if isinstance(tree, (tuple, list)):
        return tuple([_argument_structure(item, block, order) for item in tree])
    if isinstance(tree, dict):
        return tuple((key, _argument_structure(item, block, order)) for key, item in tree.items())
    if isinstance(tree, slice):
        return "slice", _argument_structure((tree.start, tree.stop, tree.step), block, order)
    if isinstance(tree, Value):
        return "value", None if order is None else order[tree]
    if isinstance(tree, Attribute):
        return "attribute", relative_path(block, tree), len(tree.shape)
    if isinstance(tree, Literal):
        return "constant", tuple(tree.tensor.shape)
    return "python"


def _order(block: Block) -> dict[Value, int]:
    """Values numbered by where they come to be."""
    values = [*block.inputs, *(value for node in block.nodes for value in node.outputs)]
    return {value: i for i, value in enumerate(dict.fromkeys(values))}
