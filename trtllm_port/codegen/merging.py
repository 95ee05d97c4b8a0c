"""Blocks of the same structure, merged into classes: what differs between instances becomes a `Symbol`.

An instance is one call of one module in one trace. Instances of a class have the same Hugging Face class and compute
the same operations on the same operands; only Python values differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trtllm_port.codegen import probing
from trtllm_port.codegen.expressions import Rounded, Symbol
from trtllm_port.codegen.folding import LAYER
from trtllm_port.codegen.ir import Block, Leaf, Node
from trtllm_port.codegen.lowering import Lowered, constant_of, relative_path
from trtllm_port.codegen.recorder import Attribute, Literal, Value, leaves
from trtllm_port.codegen.tracing import Trace
from trtllm_port.errors import UnsupportedModelError


class Differ(Exception):
    """Two instances are not of one structure; says where."""


@dataclass(eq=False)
class Instance:
    """One block of one trace."""

    trace: Trace
    block: Block

    @property
    def role(self) -> str:
        """The module's name with its layer's number left open."""
        return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", self.block.path)

    @property
    def layer_idx(self) -> int | None:
        """The number of the layer that the module is in, or None."""
        found = re.search(r"\.(\d+)(?=\.|$)", self.block.path)
        return int(found[1]) if found else None


@dataclass(eq=False)
class PortClass:
    """A class of the port.

    Attributes:
        name: the Hugging Face class's name, made unique.
        block: the first instance's block with `Symbol` for every value that differs.
        children: attribute path → the class of a sub-module, or its `Leaf` with symbols.
    """

    name: str
    instances: list[Instance]
    block: Block
    children: dict[str, PortClass | Leaf] = field(default_factory=dict)


def structure(block: Block) -> Any:
    """What must be equal for blocks to be of one class: everything but Python values."""
    order = _order(block)
    return (
        block.class_name,
        len(block.inputs),
        tuple(_node_structure(node, order, block) for node in block.nodes),
        tuple(order[value] for value in block.outputs),
    )


def _node_structure(node: Node, order: Mapping[Value, int], block: Block) -> Any:
    inner: Any = None
    if node.block is not None:
        inner = node.block.leaf.kind if node.block.leaf else structure(node.block)
    shape = _shape_of((node.args, node.keywords), order, block)
    return node.form, node.name, shape, len(node.outputs), node.roles, inner


def _shape_of(tree: Any, order: Mapping[Value, int], block: Block) -> Any:
    if isinstance(tree, tuple | list):
        return tuple(_shape_of(item, order, block) for item in tree)
    if isinstance(tree, Mapping):
        return tuple((key, _shape_of(item, order, block)) for key, item in tree.items())
    if isinstance(tree, slice):
        return "slice", _shape_of((tree.start, tree.stop, tree.step), order, block)
    if isinstance(tree, Value):
        return "value", order[tree]
    if isinstance(tree, Attribute):
        return "attribute", relative_path(block, tree)
    if isinstance(tree, Literal):
        return "constant", tuple(tree.tensor.shape)
    return "python"


def _order(block: Block) -> dict[Value, int]:
    """Values numbered by where they come to be."""
    values = [*block.inputs, *(value for node in block.nodes for value in node.outputs)]
    return {value: i for i, value in enumerate(dict.fromkeys(values))}


def merge(instances: list[Instance]) -> Block:
    """One block for all instances, which have the same structure."""
    blocks = [instance.block for instance in instances]
    first = blocks[0]
    nodes = [_merge_nodes([block.nodes[i] for block in blocks], instances) for i in range(len(first.nodes))]
    return replace(first, nodes=nodes)


def _merge_nodes(nodes: list[Node], instances: list[Instance]) -> Node:
    first = nodes[0]
    block = first.block
    if block is not None and first.form == "loop":
        inner = [Instance(i.trace, node.block) for i, node in zip(instances, nodes, strict=True) if node.block]
        block = merge(inner)
    return replace(
        first,
        args=_merge_trees([node.args for node in nodes], instances),
        keywords=_merge_trees([node.keywords for node in nodes], instances),
        shapes=_merge_trees([node.shapes for node in nodes], instances),
        block=block,
    )


def _merge_trees(trees: list[Any], instances: list[Instance]) -> Any:
    first = trees[0]
    if isinstance(first, slice):
        parts = [_merge_trees([getattr(t, part) for t in trees], instances) for part in ("start", "stop", "step")]
        return slice(*parts)
    if isinstance(first, tuple | list):
        return type(first)(_merge_trees([tree[i] for tree in trees], instances) for i in range(len(first)))
    if isinstance(first, Mapping) and all(isinstance(tree, Mapping) and list(tree) == list(first) for tree in trees):
        return {key: _merge_trees([tree[key] for tree in trees], instances) for key in first}
    if isinstance(first, Value):
        return first
    numbers = [_number(tree, instance) for tree, instance in zip(trees, instances, strict=True)]
    if isinstance(first, Attribute | Literal) and any(number is None for number in numbers):
        return first
    return merge_values(tuple(numbers))


def merge_values(values: tuple[Any, ...]) -> Any:
    """The value that all are equal to, else a symbol."""
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    return Symbol(values)


def _number(tree: Any, instance: Instance) -> Any:
    """A Python value; a constant tensor of one element counts as one."""
    constant = constant_of(tree, instance.trace.model)
    if constant is None:
        return None if isinstance(tree, Attribute) else tree
    if constant.numel() != 1:
        return None
    number = constant.item()
    return Rounded(number) if constant.dtype in (torch.bfloat16, torch.float16) else number


def flat_values(block: Block, trace: Trace) -> Iterator[Any]:
    """All Python values and constants of a block, with the parameters that it uses itself."""
    for node in block.nodes:
        trees: list[Any] = [node.args, node.keywords]
        if node.block is not None and node.block.leaf is not None:
            trees += [node.block.leaf.args, node.block.leaf.keywords]
        for leaf in leaves(trees):
            if isinstance(leaf, Value):
                continue
            constant = constant_of(leaf, trace.model)
            yield leaf if constant is None else constant
        if node.form == "loop" and node.block is not None:
            yield from flat_values(node.block, trace)


def merge_leaves(found: list[Leaf]) -> Leaf:
    """One basic layer for all instances."""
    first = found[0]
    kinds = {leaf.kind for leaf in found}
    if len(kinds) > 1 or any(len(leaf.args) != len(first.args) for leaf in found):
        raise Differ(f"{' and '.join(sorted(kinds))} in the same place")
    args = tuple(merge_values(column) for column in zip(*(leaf.args for leaf in found), strict=True))
    keywords = {key: merge_values(tuple(leaf.keywords[key] for leaf in found)) for key in first.keywords}
    return Leaf(first.kind, args, keywords)


def make_classes(samples: list[Lowered]) -> list[PortClass]:
    """The classes of the port, inner ones first, the model's own last.

    Raises:
        Differ: a trace has another structure than the first.
        UnsupportedModelError: the layers of a list are not alike.
    """
    groups: dict[Any, list[Instance]] = {}
    structures = [{block.path: structure(block) for block in sample.blocks} for sample in samples]
    for index, sample in enumerate(samples):
        _same_structure(samples[0], sample, (structures[0], structures[index]))
        for block in sample.blocks:
            groups.setdefault(structures[index][block.path], []).append(Instance(sample.trace, block))
    _same_layers(samples[0])
    classes: dict[Any, PortClass] = {}
    names: dict[str, int] = {}
    for key, instances in groups.items():
        base = instances[0].block.class_name
        names[base] = names.get(base, 0) + 1
        name = base if names[base] == 1 else f"{base}{names[base]}"
        classes[key] = PortClass(name, instances, merge(instances))
    for port_class in classes.values():
        port_class.children = _children(port_class, classes, structures[0])
    return _inner_first(list(classes.values()))


def _same_structure(first: Lowered, other: Lowered, structures: tuple[dict[str, Any], dict[str, Any]]) -> None:
    paths = [
        path
        for path in dict.fromkeys([*structures[0], *structures[1]])
        if structures[0].get(path) != structures[1].get(path)
    ]
    if not paths:
        return
    innermost = max(paths, key=lambda path: path.count(".") + bool(path))
    blocks = [next((block for block in sample.blocks if block.path == innermost), None) for sample in (first, other)]
    where = f"`{innermost or first.root.class_name}`"
    if blocks[0] is None or blocks[1] is None:
        raise Differ(f"{where} is not always there")
    orders = [_order(block) for block in blocks if block is not None]
    for a, b in zip(blocks[0].nodes, blocks[1].nodes, strict=False):
        if _node_structure(a, orders[0], blocks[0]) != _node_structure(b, orders[1], blocks[1]):
            raise Differ(f"{where} computes `{a.name or a.form}` or `{b.name or b.form}` ({a.location})")
    raise Differ(f"{where} computes more or less")


def _same_layers(sample: Lowered) -> None:
    """Refuse lists of layers that are looped over but not of one class."""
    by_list: dict[str, dict[Any, str]] = {}
    for block in sample.blocks:
        match = LAYER.match(block.path)
        if match:
            by_list.setdefault(match["list"], {}).setdefault(structure(block), block.path)
    for name, kinds in by_list.items():
        if len(kinds) > 1:
            raise UnsupportedModelError(
                f"the layers of `{name}` are not alike: {' and '.join(f'`{path}`' for path in kinds.values())} compute "
                "different things, which the generator cannot express yet",
                hint="write this part by hand: `trtllm-port new --blank NAME`",
            )


def _children(
    port_class: PortClass, classes: Mapping[Any, PortClass], structures: dict[str, Any]
) -> dict[str, PortClass | Leaf]:
    children: dict[str, PortClass | Leaf] = {}
    nodes = [list(_calls(instance.block)) for instance in port_class.instances]
    for column in zip(*nodes, strict=True):
        blocks = [node.block for node in column if node.block is not None]
        if blocks[0].leaf is not None:
            children[column[0].name] = merge_leaves([block.leaf for block in blocks if block.leaf is not None])
        else:
            children[column[0].name] = classes[structures[blocks[0].path]]
    for path in _owners(port_class.block) - children.keys():
        found = [probing.probe(instance.block.module.get_submodule(path)) for instance in port_class.instances]
        if all(leaf is not None for leaf in found):
            children[path] = merge_leaves([leaf for leaf in found if leaf is not None])
    return children


def _owners(block: Block) -> set[str]:
    """Sub-modules whose parameters a block uses itself, without a call of theirs."""
    found = (leaf for node in block.nodes for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Attribute))
    paths = (relative_path(block, attribute) for attribute in found if attribute.persistent)
    return {path.rpartition(".")[0] for path in paths if path is not None and "." in path}


def _calls(block: Block) -> Iterator[Node]:
    for node in block.nodes:
        if node.form == "call":
            yield node
        elif node.block is not None:
            yield from _calls(node.block)


def _inner_first(classes: list[PortClass]) -> list[PortClass]:
    """Every class behind those that it uses; otherwise in the order of first use."""
    ordered: dict[int, PortClass] = {}

    def visit(port_class: PortClass) -> None:
        for child in port_class.children.values():
            if isinstance(child, PortClass):
                visit(child)
        ordered.setdefault(id(port_class), port_class)

    visit(classes[0])
    return list(ordered.values())


def all_values(block: Block) -> Iterator[Value]:
    """Every value that a block mentions."""
    yield from block.inputs
    for node in block.nodes:
        yield from (leaf for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Value))
        yield from node.outputs
