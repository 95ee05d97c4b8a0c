"""Blocks of one class merged into one: numbers that differ become symbolic values, computations branches.

The nodes of all instances are aligned; one that some of them do not have goes into a branch. Where instances then use
different values in the same place, the branch before it has a result that is the one value or the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from trtllm_port.codegen.ir.alignment import Slot, align
from trtllm_port.codegen.ir.expressions import MISSING, Bfloat16, Float32, Rounded, merge_values
from trtllm_port.codegen.ir.nodes import Block, Instance, Node, values_in
from trtllm_port.codegen.ir.record import Attribute, Literal, Value
from trtllm_port.codegen.ir.structure import label, relative_path, structure_number
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.merge.case_chains import Chain, Region, branch_node, chain_node, find_chain
from trtllm_port.codegen.recognise.constants import constant_of, exact_number, stays_bfloat16

Keys = Callable[[Block], "tuple[str, ...] | None"]


class NotMergeable(Exception):
    """Instances are not of one structure; says where."""


def merge(instances: list[Instance], keys: Keys) -> Block:
    """One block for all instances.

    Args:
        keys: block of a call → what the class of the port for it takes, by name; None for basic layers.

    Raises:
        NotMergeable: no block can stand for all of them.
    """
    return _Merger(instances, keys).merge()


class _Merger:
    def __init__(self, instances: list[Instance], keys: Keys) -> None:
        self.instances = instances
        self.keys = keys
        self.everybody = frozenset(range(len(instances)))
        self.merged: list[dict[Value, Value]] = [{} for _ in instances]  # own value → that of the merged block
        self.names: dict[Value, list[str]] = {}
        self.home: dict[Value, int] = {}  # merged value → its region; -1 for inputs
        self.having: dict[Value, frozenset[int]] = {}  # merged value → the instances that have it; inputs are not here
        self.regions: list[Region] = []
        self.chains: dict[int, Chain] = {}  # by the number of their first region
        self.chosen: dict[tuple[Value | None, ...], Value] = {}  # values by instance → the one that is any of them

    def merge(self) -> Block:
        blocks = [instance.block for instance in self.instances]
        inputs = self._inputs()
        for slot in self._slots():
            self._place(slot)
        counts = {len(block.outputs) for block in blocks}
        if len(counts) > 1:
            pair = [next(block.path for block in blocks if len(block.outputs) == count) for count in sorted(counts)[:2]]
            raise NotMergeable(f"`{pair[0]}` and `{pair[1]}` return different numbers of tensors")
        outputs = tuple(
            self._resolve({i: block.outputs[number] for i, block in enumerate(blocks)})
            for number in range(counts.pop())
        )
        for i, block in enumerate(blocks):
            self._learn_names(i, block)
        reads = dict.fromkeys(read for block in blocks for read in block.host_reads)
        return replace(
            blocks[0],
            inputs=tuple(inputs.values()),
            keys=tuple(inputs),
            optional=frozenset().union(*(block.optional for block in blocks)),
            nodes=self._nodes(outputs),
            outputs=outputs,
            host_reads=tuple(reads),
            names=self.names,
        )

    def _learn_names(self, number: int, block: Block) -> None:
        for value, names in block.names.items():
            known = self.names.setdefault(self.merged[number].get(value, value), [])
            known += [name for name in names if name not in known]

    def _inputs(self) -> dict[str, Value]:
        """What any instance takes, by name."""
        order: list[str] = []
        found: dict[str, Value] = {}
        for number, instance in enumerate(self.instances):
            before = -1
            for key, value in zip(instance.block.keys, instance.block.inputs, strict=True):
                if key not in found:
                    order.insert(before + 1, key)
                    found[key] = value if value not in found.values() else Value(value.tensor)
                before = order.index(key)
                self.merged[number].setdefault(value, found[key])
        self.home.update(dict.fromkeys(found.values(), -1))
        return {key: found[key] for key in order}

    # nodes

    def _slots(self) -> list[Slot]:
        """The nodes of all instances, aligned: instance → node."""
        variants: dict[Any, list[int]] = {}
        for i, instance in enumerate(self.instances):
            variants.setdefault(structure_number(instance.block), []).append(i)
        groups = list(variants.values())
        blocks = [self.instances[group[0]].block for group in groups]
        slots = align(
            [block.nodes for block in blocks], lambda number, node: label(node, blocks[number], self._taken_by(node))
        )
        places = [{id(node): place for place, node in enumerate(block.nodes)} for block in blocks]
        return [
            {i: self.instances[i].block.nodes[places[n][id(node)]] for n, node in slot.items() for i in groups[n]}
            for slot in slots
        ]

    def _taken_by(self, node: Node) -> tuple[str, ...] | None:
        return self.keys(node.block) if node.block is not None and node.block.leaf is None else None

    def _place(self, slot: Slot) -> None:
        """Put a slot's node into the regions."""
        guard = frozenset(slot)
        node = self._node(slot)
        last = self.regions[-1] if self.regions else Region(frozenset())
        same = last.guard in (guard, self.everybody - guard) and guard != self.everybody
        closed = any(chain.stop == len(self.regions) for chain in self.chains.values())
        if not same or not last.sides[0] or last.results or closed:
            last = Region(guard)
            self.regions.append(last)
        last.sides[0 if last.guard == guard else 1].append(node)
        for i, own in slot.items():
            self.merged[i].update(zip(own.outputs, node.outputs, strict=True))
        self.home.update(dict.fromkeys(node.outputs, len(self.regions) - 1))
        self.having.update(dict.fromkeys(node.outputs, guard))

    def _node(self, slot: Slot) -> Node:
        first = next(iter(slot.values()))
        if first.form == "loop":
            return self._loop(slot)
        keys = self._taken_by(first)
        if keys is not None:
            args: Any = tuple(self._given(slot, key) for key in keys)
        else:
            args = self._tree({i: node.args for i, node in slot.items()})
        keywords = {key: self._tree({i: node.keywords[key] for i, node in slot.items()}) for key in first.keywords}
        shapes = {i: node.shapes for i, node in slot.items()}
        same_rank = len({len(one) for one in shapes.values()}) == 1
        return replace(first, args=args, keywords=keywords, shapes=self._tree(shapes) if same_rank else ())

    def _given(self, slot: Slot, key: str) -> Value:
        """What a class of the port gets for one of its inputs, whether all its instances use it or not."""
        column = {
            i: node.args[node.block.keys.index(key)]
            for i, node in slot.items()
            if node.block is not None and key in node.block.keys
        }
        if not column:  # it has something else only elsewhere
            raise NotMergeable(
                f"`{self.instances[0].block.path}` has no `{key}` for `{next(iter(slot.values())).name}`"
            )
        value = self._resolve(column)
        if len(column) < len(slot) and self.home.get(value, 0) >= 0 and value not in self.chosen.values():
            holder = self.regions[self.home[value]]
            if holder.guard != self.everybody:
                raise NotMergeable(f"`{self.instances[0].block.path}` does not always compute what `{key}` is")
        return value

    def _loop(self, slot: Slot) -> Node:
        """One loop: its rounds in all instances merged into one body."""
        first = slot[min(slot)]
        if frozenset(slot) != self.everybody or any(len(n.args) != len(first.args) for n in slot.values()):
            raise NotMergeable(f"`{self.instances[0].block.path}` has not always a loop over the same tensors")
        rounds = [
            Instance(self.instances[i].trace, one, n) for i in sorted(slot) for n, one in enumerate(slot[i].rounds)
        ]
        args: list[Any] = []
        roles = list(first.roles)
        choices: dict[int, tuple[int, ...]] = {}
        for place in range(len(first.args)):
            if all(node.roles[place] != "varying" for node in slot.values()):
                args.append(self._resolve({i: node.args[place] for i, node in slot.items()}))
                continue
            roles[place] = "varying"
            given = [self.merged[i][v] for i in sorted(slot) for v in _by_round(slot[i], place)]
            distinct = list(dict.fromkeys(given))
            args.append(tuple(distinct))
            choices[place] = tuple(map(distinct.index, given))
        body = merge(rounds, self.keys)
        return replace(
            first, args=tuple(args), roles=tuple(roles), block=body, instances=rounds, choices=choices, rounds=()
        )

    # arguments

    def _tree(self, trees: Mapping[int, Any]) -> Any:
        """The arguments of all instances as one."""
        first = next(iter(trees.values()))
        if isinstance(first, slice):
            return slice(*self._tree({i: (t.start, t.stop, t.step) for i, t in trees.items()}))
        if isinstance(first, tuple | list):
            return type(first)(self._tree({i: tree[k] for i, tree in trees.items()}) for k in range(len(first)))
        if isinstance(first, Mapping) and any(isinstance(leaf, Value | Attribute | Literal) for leaf in leaves(first)):
            return {key: self._tree({i: tree[key] for i, tree in trees.items()}) for key in first}
        if isinstance(first, Mapping):  # of the config, which has it as a whole, and not all entries in all traces
            return merge_values(tuple(trees.get(i, MISSING) for i in range(len(self.instances))))
        if isinstance(first, Value):
            return self._resolve(trees)
        numbers = {i: _number(tree, self.instances[i]) for i, tree in trees.items()}
        if isinstance(first, Attribute | Literal) and any(number is None for number in numbers.values()):
            return self._rebased(first, next(iter(trees)))
        merged = merge_values(tuple(numbers.get(i, MISSING) for i in range(len(self.instances))))
        if type(merged) is Rounded and isinstance(first, Attribute):  # no expression will give it exactly
            return exact_number(first, self.instances[next(iter(trees))].trace)
        return merged

    def _rebased(self, found: Attribute | Literal, number: int) -> Attribute | Literal:
        """An attribute as the first instance calls it."""
        path = relative_path(self.instances[number].block, found) if isinstance(found, Attribute) else None
        if path is None or not isinstance(found, Attribute):
            return found
        own = self.instances[0].block.path
        return replace(found, path=f"{own}.{path}" if own else path)

    def _resolve(self, column: Mapping[int, Value]) -> Value:
        """The merged value of what instances have in one place."""
        values = tuple(self.merged[i][column[i]] if i in column else None for i in range(len(self.instances)))
        distinct = {value for value in values if value is not None}
        if len(distinct) == 1:
            return distinct.pop()
        if values not in self.chosen:
            first = next(value for value in values if value is not None)
            self.chosen[values] = Value(first.tensor)
            self._decide(values, self.chosen[values])
        return self.chosen[values]

    def _decide(self, values: tuple[Value | None, ...], result: Value) -> None:
        """Make `result` what each instance has among `values`, in the branch that decides it or in a new one."""
        self.having[result] = frozenset(i for i, value in enumerate(values) if value is not None)
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        latest = max(self.home[value] for value in distinct)
        for number in range(len(self.regions) - 1, max(latest, 0) - 1, -1):
            region = self.regions[number]
            sides = [
                {v for i, v in enumerate(values) if v is not None and (i in region.guard) is s} for s in (True, False)
            ]
            if region.guard != self.everybody and len(sides[0]) == len(sides[1]) == 1:
                self.regions[number].results.append((result, sides[0].pop(), sides[1].pop()))
                self.home[result] = number
                return
            if self._decide_in_chain(number + 1, values, result):
                return
        guard = frozenset(i for i, value in enumerate(values) if value is distinct[0])
        others = tuple(value if value is not distinct[0] else None for value in values)
        other = distinct[1] if len(distinct) == 2 else self.chosen.setdefault(others, Value(distinct[1].tensor))
        if len(distinct) > 2:
            self._decide(others, other)
        either = frozenset(i for i, value in enumerate(values) if value is None)
        self.regions.append(Region(guard | either, either))
        self.regions[-1].results.append((result, distinct[0], other))
        self.home[result] = len(self.regions) - 1

    def _decide_in_chain(self, stop: int, values: tuple[Value | None, ...], result: Value) -> bool:
        found = find_chain(self.regions, stop, self.everybody, values)
        if found is None:
            return False
        chain, column = found
        overlapping = [one for one in self.chains.values() if one.start < stop and chain.start < one.stop]
        if any((one.start, one.stop) != (chain.start, stop) for one in overlapping):
            return False
        self.chains.setdefault(chain.start, chain).results.append((result, column))
        self.home[result] = stop - 1
        return True

    # branches

    def _nodes(self, outputs: tuple[Value, ...]) -> list[Node]:
        nodes: list[Node] = []
        number = 0
        while number < len(self.regions):
            region, chain = self.regions[number], self.chains.get(number)
            stop = chain.stop if chain is not None else number + 1
            if chain is not None:
                used = self._used_outside(number, stop, outputs)
                nodes.append(chain_node(chain, self.regions[number:stop], self.everybody, used, self._guarded))
            elif region.guard == self.everybody:
                nodes += region.sides[0]
            else:
                nodes.append(self._branch(region, self._used_outside(number, stop, outputs)))
            number = stop
        for node in nodes:
            self._name_results(node)
        return nodes

    def _name_results(self, node: Node) -> None:
        """What is one value or the other may be called what either is called."""
        if node.branch is None:
            return
        for inner in (one for side in node.branch.sides for one in side):
            self._name_results(inner)
        for result, sources in zip(node.outputs, node.branch.results, strict=True):
            known = self.names.setdefault(result, [])
            lists = [self.names.get(source, []) for source in sources if source is not None]
            shared = [name for name in lists[0] if all(name in other for other in lists[1:])] if lists else []
            known += [n for n in dict.fromkeys([*shared, *(n for one in lists for n in one)]) if n not in known]

    def _used_outside(self, start: int, stop: int, outputs: tuple[Value, ...]) -> set[Value]:
        """What is needed of some regions: by the other ones, and behind all."""
        used = {*outputs}
        for number, region in enumerate(self.regions):
            if not start <= number < stop:
                used |= {v for side in region.sides for node in side for v in _reads(node)}
                used |= {v for _, *sources in region.results for v in sources if v is not None}
        for chain in self.chains.values():
            if chain.start != start:
                used |= {v for _, column in chain.results for v in column if v is not None}
        return used

    def _branch(self, region: Region, used: set[Value]) -> Node:
        made = [{value for node in side for value in node.outputs} for side in region.sides]
        escaping = [v for v in dict.fromkeys(v for side in region.sides for n in side for v in n.outputs) if v in used]
        results = [*region.results, *((v, v if v in made[0] else None, v if v in made[1] else None) for v in escaping)]
        guard = tuple(None if i in region.either else i in region.guard for i in range(len(self.instances)))
        node = self._guarded(guard, region.sides, results)
        assert node.branch is not None
        taken = frozenset(i for i in self.everybody if guard[i] is False)
        able = taken.intersection(*(self.having.get(b, taken) for _, _, b in results if b is not None))
        if able != taken:
            node.branch = replace(node.branch, second=tuple(None if g else i in able for i, g in enumerate(guard)))
        return node

    def _guarded(
        self,
        guard: tuple[bool | None, ...],
        sides: tuple[list[Node], list[Node]],
        results: list[tuple[Value, Value | None, Value | None]],
    ) -> Node:
        first, second = (
            next((one.block.path for i, one in enumerate(self.instances) if guard[i] is s), "") for s in (True, False)
        )
        return branch_node(guard, sides, results, (first, second), _reads)


def _reads(node: Node) -> list[Value]:
    return list(values_in((node.args, node.keywords)))


def _by_round(loop: Node, place: int) -> tuple[Value, ...]:
    given = loop.args[place]
    return given if isinstance(given, tuple) else (given,) * len(loop.rounds)


def _number(tree: Any, instance: Instance) -> Any:
    """A Python value; a constant tensor of one element counts as one."""
    constant = constant_of(tree, instance.trace.model)
    if constant is None:
        return None if isinstance(tree, Attribute) else tree
    if constant.numel() != 1:
        return None
    number = constant.item()
    if stays_bfloat16(tree, instance.trace.bfloat16_buffers) and constant.dtype == torch.bfloat16:
        return Bfloat16(number)
    if constant.dtype == torch.float32 and math.isfinite(number):
        return Float32(number)
    return Rounded(number) if constant.dtype in (torch.bfloat16, torch.float16) else number
