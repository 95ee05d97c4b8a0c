"""Blocks merged into classes: what differs between instances becomes a `SymbolicValue`, or a branch.

An instance is one call of one module in one trace. Instances of a class have the same Hugging Face class. Those that
compute the same operations on the same operands are of one class wherever they are; those that compute different things
are variants of one class where they have the same place in different layers, or in different traces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trtllm_port import layers
from trtllm_port.codegen.ir.expressions import MISSING, merge_values
from trtllm_port.codegen.ir.nodes import Block, Instance, Leaf, calls
from trtllm_port.codegen.ir.record import Attribute, Value
from trtllm_port.codegen.ir.structure import kept, relative_path, role, structure_number
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.anti_unification import NotMergeable, merge
from trtllm_port.codegen.recognise.constants import constant_of
from trtllm_port.codegen.record import probing


@dataclass(eq=False)
class Child:
    """What a sub-module is in some of the instances of a class.

    Attributes:
        there: for each instance, whether its sub-module is this.
        made: a class of the port, or a basic layer with symbolic values.
    """

    there: tuple[bool, ...]
    made: PortClass | Leaf


@dataclass(eq=False)
class PortClass:
    """A class of the port.

    Attributes:
        name: the Hugging Face class's name, made unique.
        block: the instances' blocks in one.
        children: attribute path → what the sub-module is; more than one if it differs between instances.
        lent: parameters that a module around uses: name → the blocks of those instances where one does.
    """

    name: str
    instances: list[Instance]
    block: Block
    children: dict[str, list[Child]] = field(default_factory=dict)
    lent: dict[str, set[Block]] = field(default_factory=dict)


def class_title(architecture: str) -> str:
    """A readable name: `Qwen2ForCausalLM` → `Qwen2`."""
    return re.sub(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", architecture)


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
        for one in node.rounds:
            yield from flat_values(one, trace)


def make_classes(samples: list[Lowered]) -> list[PortClass]:
    """The classes of the port, inner ones first, the model's own last.

    Raises:
        NotMergeable: blocks of one class cannot be merged.
    """
    instances: dict[str, list[Instance]] = {}
    for sample in samples:
        for block in sample.blocks:
            instances.setdefault(block.class_name, []).append(Instance(sample.trace, block))
    classes: dict[Block, PortClass] = {}
    ordered: list[PortClass] = []
    title = class_title(type(samples[0].trace.model).__name__)
    for name in _inner_first(samples):
        # The layer that stands for a module of torch has that module's name: what is written out has a number.
        first = 2 if type(instances[name][0].block.module).__module__.startswith("torch.") else 1
        for number, group in enumerate(_groups(instances[name], classes), first):
            merged = merge(group, lambda block: classes[block].block.keys)
            own = f"{title}{name}" if name in layers.__all__ else name  # which the port may import
            made = PortClass(own if number == 1 else f"{own}{number}", group, merged)
            made.children = _children(group, classes)
            _lend(group, classes)
            classes.update({instance.block: made for instance in group})
            ordered.append(made)
    return _as_used(ordered)


def _inner_first(samples: list[Lowered]) -> list[str]:
    """The names of Hugging Face's classes, every class behind those that it calls.

    Raises:
        NotMergeable: a class contains itself.
    """
    uses: dict[str, set[str]] = {}
    for sample in samples:
        for block in sample.blocks:
            called = {node.block.class_name for node in calls(block) if node.block is not None and not node.block.leaf}
            uses.setdefault(block.class_name, set()).update(called)
    ordered: list[str] = []
    while len(ordered) < len(uses):
        free = [name for name in uses if name not in ordered and uses[name] <= {*ordered}]
        if not free:
            raise NotMergeable(
                f"{' and '.join(f'`{name}`' for name in uses if name not in ordered)} contain each other"
            )
        ordered += free
    return ordered


def _groups(instances: list[Instance], classes: dict[Block, PortClass]) -> list[list[Instance]]:
    """The instances of one Hugging Face class by class of the port."""
    groups: list[list[Instance]] = []
    group_of: dict[Any, list[Instance]] = {}
    for instance in instances:
        inner = tuple(id(classes[n.block]) for n in calls(instance.block) if n.block in classes)
        keys = ("computes", structure_number(instance.block), inner), ("is", role(instance.block))
        found = [group_of[key] for key in keys if key in group_of]
        group = found[0] if found else []
        if not found:
            groups.append(group)
        elif len(found) == 2 and found[1] is not group:  # so far they were thought to be two
            group += found[1]
            groups.remove(found[1])
            group_of = {key: group if other is found[1] else other for key, other in group_of.items()}
        group.append(instance)
        group_of.update(dict.fromkeys(keys, group))
    return groups


def merge_leaves(found: list[Leaf | None]) -> Leaf:
    """One basic layer for all instances that have it."""
    there = [leaf for leaf in found if leaf is not None]
    first = there[0]
    args = tuple(
        merge_values(tuple(MISSING if leaf is None else leaf.args[i] for leaf in found)) for i in range(len(first.args))
    )
    keywords = {
        key: merge_values(tuple(MISSING if leaf is None else leaf.keywords[key] for leaf in found))
        for key in first.keywords
    }
    return Leaf(first.kind, args, keywords)


def _children(instances: list[Instance], classes: dict[Block, PortClass]) -> dict[str, list[Child]]:
    found: dict[str, dict[Any, list[Any]]] = {}  # path → what it is → for each instance, that or None
    uncalled: dict[str, dict[Any, list[Any]]] = {}  # the same for those whose parameters alone are used
    for number, instance in enumerate(instances):
        for node in calls(instance.block):
            assert node.block is not None  # of a call
            leaf = node.block.leaf
            made: Any = classes[node.block] if leaf is None else leaf
            kind = id(made) if leaf is None else (leaf.kind, len(leaf.args))
            column = found.setdefault(node.name, {}).setdefault(kind, [None] * len(instances))
            column[number] = made
        for path in _owners(instance.block):
            leaf = None if path in found else probing.probe(instance.block.module.get_submodule(path))
            if leaf is not None:
                uncalled.setdefault(path, {}).setdefault((leaf.kind, len(leaf.args)), [None] * len(instances))[
                    number
                ] = leaf
    found |= {path: kinds for path, kinds in uncalled.items() if path not in found}
    children: dict[str, list[Child]] = {}
    for path, kinds in found.items():
        for column in kinds.values():
            made = next(one for one in column if one is not None)
            there = tuple(one is not None for one in column)
            children.setdefault(path, []).append(Child(there, merge_leaves(column) if isinstance(made, Leaf) else made))
    return children


def _lend(instances: list[Instance], classes: dict[Block, PortClass]) -> None:
    """Tell the classes of sub-modules which of their parameters the instances use themselves."""
    for instance in instances:
        called = {node.name: node.block for node in calls(instance.block)}
        for path in _parameters_of_others(instance.block):
            owner, _, name = path.rpartition(".")
            block = called.get(owner)
            if block is not None and block in classes:
                classes[block].lent.setdefault(name, set()).add(block)


def _owners(block: Block) -> set[str]:
    """Sub-modules whose parameters a block uses itself, perhaps without a call of theirs."""
    return {path.rpartition(".")[0] for path in _parameters_of_others(block)}


@kept
def _parameters_of_others(block: Block) -> frozenset[str]:
    """Parameters of sub-modules that a block uses itself, by their names as seen from the block."""
    found = (leaf for node in block.nodes for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Attribute))
    paths = (relative_path(block, attribute) for attribute in found if attribute.persistent)
    return frozenset(path for path in paths if path is not None and "." in path)


def _as_used(classes: list[PortClass]) -> list[PortClass]:
    """Every class behind those that it uses; otherwise in the order of first use."""
    ordered: dict[int, PortClass] = {}

    def visit(port_class: PortClass) -> None:
        for options in port_class.children.values():
            for child in options:
                if isinstance(child.made, PortClass):
                    visit(child.made)
        ordered.setdefault(id(port_class), port_class)

    visit(next(one for one in classes if not one.instances[0].block.path))
    return list(ordered.values())
