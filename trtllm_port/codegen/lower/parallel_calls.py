"""Modules of one list that take a part of a tensor each, whose results are put together again: one call for all."""

from __future__ import annotations

from torch import nn

from trtllm_port.codegen.ir.nodes import Block, Node, values_in
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.lower.loop_rolling import LAYER

PARTS = ("size", "dim")  # keywords of such a call: of the parts along the dimension that is cut


def join_parallel(block: Block) -> None:
    """Replace the cut, the calls and the join by a call of `list.*` with the keywords `PARTS`.

    It stands for equal basic layers only, all of one list in its order. How many there are, as many as a model has
    heads perhaps, is then no part of what the block computes.

    Args:
        block: changed in place.
    """
    for cut in [node for node in block.nodes if node.form == "method" and node.name == "split"]:
        called = _call_for_all(block, cut)
        if called is not None:
            calls = [node for value in cut.outputs for node in _users(block, value)]
            kept = [node for node in block.nodes if node is not cut and node not in calls]
            block.nodes = [called if node.outputs == called.outputs else node for node in kept]


def _call_for_all(block: Block, cut: Node) -> Node | None:
    """The call that stands for those of the parts of a tensor, or None."""
    users = [_users(block, value) for value in cut.outputs]
    calls = [found[0] for found in users if len(found) == 1]
    if len(calls) < len(users) or not isinstance(cut.args[1], int):
        return None
    places = [LAYER.match(call.name) if call.form == "call" else None for call in calls]
    name = places[0]["list"] if places[0] else ""
    leaves = [call.block.leaf if call.block is not None else None for call in calls]
    modules = block.module.get_submodule(name) if name else None
    in_order = [place is not None and place[0] for place in places] == [f"{name}.{i}" for i in range(len(calls))]
    if not isinstance(modules, nn.ModuleList) or len(modules) != len(calls) or not in_order:
        return None
    if leaves[0] is None or any(leaf != leaves[0] for leaf in leaves):
        return None
    results = tuple(value for call in calls for value in call.outputs)
    joins = {id(node): node for value in results for node in _users(block, value)}
    join = next(iter(joins.values()), None)
    if join is None or len(joins) > 1 or (join.name, join.args) != ("concat", (results,)):
        return None
    if join.keywords["dim"] != cut.keywords["dim"] or {*cut.outputs, *results} & {*block.outputs}:
        return None
    whole = Block(f"{block.path}.{name}" if block.path else name, modules, leaf=leaves[0])
    keywords = dict(zip(PARTS, (cut.args[1], cut.keywords["dim"]), strict=True))
    return Node("call", f"{name}.*", cut.args[:1], keywords, join.outputs, calls[0].location, block=whole)


def _users(block: Block, value: Value) -> list[Node]:
    """The nodes that take a value."""
    return [node for node in block.nodes if value in values_in((node.args, node.keywords))]
