"""From the record of a trace to blocks: basic layers recognised, no-ops and dead code gone, layers in a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trtllm_port.codegen.configs.sizes import Sample, layer_count
from trtllm_port.codegen.ir.def_use import operations, taken, uses
from trtllm_port.codegen.ir.dtypes import DTYPES, TRACE_DTYPE
from trtllm_port.codegen.ir.module_paths import layer_number
from trtllm_port.codegen.ir.nodes import Block, Leaf, Node, blocks_in, values_in
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Call, Literal, Location, Operation, Value, substitute
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.codegen.lower.aliasing import distinct_copies
from trtllm_port.codegen.lower.decomposition import decomposed
from trtllm_port.codegen.lower.liveness import Interfaces, complete_signatures, eliminate_dead_code, find_inputs
from trtllm_port.codegen.lower.loop_rolling import roll_loops
from trtllm_port.codegen.lower.parallel_calls import join_parallel
from trtllm_port.codegen.lower.parameter_lifting import LiftedParameters
from trtllm_port.codegen.lower.repeated_calls import RepeatedCalls
from trtllm_port.codegen.lower.shared_caches import SharedCaches
from trtllm_port.codegen.lower.type_promotion import cast_first, promote, promote_rotation, without_expansions
from trtllm_port.codegen.recognise.allocations import Allocations
from trtllm_port.codegen.recognise.attention_patterns import fuse_attention
from trtllm_port.codegen.recognise.constant_folding import ConstantFolder
from trtllm_port.codegen.recognise.constants import constant_of
from trtllm_port.codegen.recognise.expert_loops import ExpertLoops
from trtllm_port.codegen.recognise.piecewise_constants import replace_piecewise_constant
from trtllm_port.codegen.recognise.rotary_tables import probe_rotary
from trtllm_port.codegen.recognise.rotations import Rotations
from trtllm_port.codegen.recognise.token_loops import fuse_token_loops
from trtllm_port.codegen.record import probing
from trtllm_port.codegen.record.convolutions import CausalConvolution, Convolutions
from trtllm_port.codegen.record.experts import experts_arguments, probe_experts
from trtllm_port.codegen.rules.base import node
from trtllm_port.codegen.rules.translation import translate
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.quoting import literal

JOINS = ("concat", "stack")
EXTREMA = {"max": "amax", "min": "amin"}


@dataclass(eq=False)
class Lowered:
    """The blocks of a trace.

    Attributes:
        root: the model's block; layers called one after the other are a loop.
        blocks: of all modules that are no basic layers, outermost first, all layers included.
        logits_indices: the input that HF does not have: the tokens whose logits are wanted.
        caches: what stands for the cache, or for a part of it.
    """

    trace: Trace
    root: Block
    blocks: list[Block]
    logits_indices: Value
    caches: frozenset[Value] = frozenset()


def lower(trace: Trace) -> Lowered:
    """The blocks of a trace."""
    logits_indices = Value(torch.zeros(trace.sample.batch, 1, dtype=torch.int64))
    lowering = _Lowering(trace)
    alike = Interfaces()
    while True:
        root = lowering.block(trace.root)
        complete_signatures(list(blocks_in(root)))
        root.outputs = (lowering.resolve(trace.logits),)
        eliminate_dead_code(root, alike)
        _gather_tokens(root, logits_indices, trace.inputs["cache"], trace.sample)
        find_inputs(root, lowering.repeated.caches, alike)
        blocks = list(blocks_in(root))
        if not alike.learn(blocks):
            break
    roll_loops(root, layer_count(trace.sample.config))
    return Lowered(trace, root, blocks, logits_indices, frozenset(lowering.repeated.caches))


def _gather_tokens(root: Block, logits_indices: Value, cache: Value, sample: Sample) -> None:
    """Compute the head for the wanted tokens only: choose them behind the last that looks at other tokens."""
    index = max((i for i, node in enumerate(root.nodes) if _reads(node, cache)), default=None)
    if index is None or len(root.nodes[index].outputs) != 1:
        raise UnsupportedModelError(
            f"`{root.class_name}` has no inner model that returns hidden states alone, after which to choose the tokens"
        )
    hidden = root.nodes[index].outputs[0]
    chosen = Value(hidden.tensor)
    for item in root.nodes[index + 1 :]:
        _substitute_inside(item, {hidden: chosen})
    root.outputs = substitute(root.outputs, {hidden: chosen})
    root.nodes[index + 1 : index + 1] = _choice(hidden, chosen, logits_indices, sample)
    root.names[chosen] = root.names.pop(hidden, [])


def _choice(hidden: Value, chosen: Value, logits_indices: Value, sample: Sample) -> list[Node]:
    """What chooses the tokens of hidden states [B, L, E], or [L, B, E]."""
    shape = tuple(hidden.tensor.shape)
    if shape[:2] != (sample.length, sample.batch):
        return [Node("function", "gather_tokens", (hidden, logits_indices), {}, (chosen,))]
    rows_first, tokens = (Value(hidden.tensor.transpose(0, 1)) for _ in range(2))
    return [
        Node("method", "transpose", (hidden, 0, 1), {}, (rows_first,), shapes=shape),
        Node("function", "gather_tokens", (rows_first, logits_indices), {}, (tokens,)),
        Node("method", "transpose", (tokens, 0, 1), {}, (chosen,), shapes=tuple(tokens.tensor.shape)),
    ]


def _reads(node: Node, value: Value) -> bool:
    """Whether a node takes a value, or something in the module that it calls does."""
    if value in values_in((node.args, node.keywords)):
        return True
    return node.block is not None and any(_reads(inner, value) for inner in node.block.nodes)


def _substitute_inside(item: Node, mapping: dict[Value, Value]) -> None:
    """Replace values in a node and in all that the module it calls computes."""
    item.args, item.keywords = substitute((item.args, item.keywords), mapping)
    block = item.block
    if block is None or block.leaf is not None:
        return
    for inner in block.nodes:
        _substitute_inside(inner, mapping)
    block.outputs = substitute(block.outputs, mapping)
    block.signature = substitute(block.signature, mapping)
    block.names = {mapping.get(value, value): names for value, names in block.names.items()}


class _Lowering:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.same: dict[Value, Value | Literal] = {}  # value → the value it equals, or what it always is
        self.leaves: dict[Any, Leaf | None] = {}  # by what tells modules apart: layers of a model are alike
        self.experts: dict[Any, bool] = {}  # the same
        self.rotations = Rotations()
        self.uses = uses(trace.root)
        self.convolutions = Convolutions(trace.root, trace.model)
        self.cut: set[Value] = set()  # what convolutions give, without what is behind the last token
        self.taken = taken(trace.root)
        self.distinct_copies = distinct_copies(trace.root)
        self.lifted = LiftedParameters(trace.model)
        self.allocations = Allocations()
        self.casts = {_place(operation) for operation in operations(trace.root) if _casts(operation)}
        self.constants = ConstantFolder(trace)
        self.repeated = RepeatedCalls(trace.root, trace.inputs["cache"])
        self.expert_loops = ExpertLoops(trace.model)

    def resolve(self, value: Value | Literal) -> Any:
        while isinstance(value, Value) and value in self.same:
            value = self.same[value]
        return value

    def tree(self, tree: Any) -> Any:
        return map_structure(lambda leaf: self.resolve(leaf) if isinstance(leaf, Value) else leaf, tree)

    def block(self, call: Call) -> Block:
        """The block of a call, with the nodes of everything it computed; `eliminate_dead_code` has not run yet."""
        block = Block(call.path, call.module)
        if call is self.trace.root:
            self.shared = SharedCaches(self.trace.inputs["cache"], self.trace.sample.values)
        self.lifted.blocks.append(block)
        joined = self.expert_loops.vectorized(call)
        for item in fuse_attention(replace(joined, body=fuse_token_loops(joined.body)), self.trace):
            if isinstance(item, Operation):
                for part in decomposed(item, self.trace.model):
                    self._operation(block, part)
            else:
                self._call(block, item)
        resolved = [self.resolve(value) for value in call.outputs]
        given = self.rotations.of(tuple(value for value in resolved if isinstance(value, Value)))
        block.outputs = block.returned = tuple(dict.fromkeys(given))
        join_parallel(block)
        block.names = _names(call, self, block)
        self.shared.rename(block)
        block.host_reads = tuple(f"`{name}` ({location})" for name, location in joined.host_reads)
        block.signature = _signature(call, self)
        self.lifted.blocks.pop()
        return block

    def _operation(self, block: Block, operation: Operation) -> None:
        convolved = self.convolutions.of_operation(operation, block.path)
        if convolved is not None:
            self._convolution(block, convolved)
            return
        if self.cut.intersection(operation.outputs):
            return
        args, kwargs = self.tree((operation.args, operation.kwargs))
        args, kwargs = self.shared.tree(block, (args, kwargs), operation.location)
        operation = self.repeated.operation(replace(operation, args=args, kwargs=kwargs))
        known = self.constants.outputs(block, operation)
        if known is not None:
            self.same.update(known)
            return
        operation = self.constants.rows.operation(self.constants.without_uniform_constants(block, operation))
        operation = replace(operation, args=self.lifted.tree(operation.args), kwargs=self.lifted.tree(operation.kwargs))
        if operation.name == "rotary_embedding":
            operation = promote_rotation(block, self.rotations.prepared(block, operation))
        operation = replace_piecewise_constant(block, operation, lambda arg: constant_of(arg, self.trace.model))
        operation = self._without_positions(cast_first(block, operation))
        result = self._written(block, operation) or translate(operation)
        if operation.name in CASTS and isinstance(result, Value) and _place(operation) in self.casts:
            result = node(operation, "cast", DTYPES[operation.outputs[0].tensor.dtype], result)
        if isinstance(result, Value) and operation.outputs[0] in self.distinct_copies:
            result = Node("alias", "", (result,), {}, operation.outputs, operation.location)
        if isinstance(result, Value):
            self.same[operation.outputs[0]] = result
            return
        assert isinstance(result, Node)
        if result.form == "operator":
            result = promote(block, without_expansions(block, result), self.trace.model)
        if result.name in JOINS and result.form == "function":
            joined = promote(block, replace(result, args=tuple(result.args[0])), self.trace.model)
            result = replace(joined, args=(joined.args,))
        source = _before_transpose(block, result)
        if source is not None:
            self.same[operation.outputs[0]] = source
            return
        self.shared.note(block, result)
        block.nodes.append(result)

    def _written(self, block: Block, operation: Operation) -> Node | None:
        """What a write into a tensor gives: a join of what was there and what is written."""
        return self.allocations.joined(block, operation) or self.allocations.overwritten(block, operation)

    def _without_positions(self, operation: Operation) -> Operation:
        """The greatest or smallest values along a dimension without the positions, if nobody asks where they are."""
        if operation.name not in EXTREMA or len(operation.outputs) != 2 or operation.outputs[1] in self.taken:
            return operation
        return replace(operation, name=EXTREMA[operation.name], outputs=operation.outputs[:1])

    def _call(self, block: Block, call: Call) -> None:
        relative = call.path[len(block.path) + 1 :] if block.path else call.path
        if call.outputs and not any(value.tensor.numel() for value in call.outputs):  # for none of the tokens
            self.same.update({value: Literal(value.tensor) for value in call.outputs})
            return
        convolved = None if call.stands_for_function else self.convolutions.of_call(call)
        if convolved is not None:
            self._convolution(block, convolved)
            return
        leaf = self._leaf(call)
        if call in self.rotations.sets:  # one module of Hugging Face, in the port one for each set of parameters
            relative = f"{relative}[{literal(self.rotations.sets[call])}]"
        if leaf is None:
            child = self._inner(block, call)
            outputs = child.outputs
        else:
            child = Block(call.path, call.module, leaf=leaf)
            outputs = self.rotations.of(call.outputs)
        args = () if leaf is None else self._leaf_arguments(block, call, leaf)
        block.nodes.append(Node("call", relative, args, {}, outputs, call.location, block=child))

    def _inner(self, block: Block, call: Call) -> Block:
        cache, part = self.repeated.cache, self.repeated.enter(block, call)
        if part is None:
            return self.block(call)
        self.same[cache] = part
        child = self.block(call)
        del self.same[cache]
        self.repeated.leave()
        return child

    def _convolution(self, block: Block, found: CausalConvolution) -> None:
        """A convolution over the text so far: it goes on from the tokens that its state holds."""
        (result, *others), state, layer = found.results, Value(torch.zeros(())), layer_number(found.path)
        if layer is None:
            raise UnsupportedModelError(f"`{found.path}` keeps the last tokens, and is in no layer")
        number = self.convolutions.number(layer, found.path)
        place = (self.trace.inputs["cache"], layer, "conv", *((number,) if number else ()))
        self._operation(block, Operation("cache_state", place, {}, (state,), found.location))
        child = Block(found.path, found.module, leaf=found.leaf)
        name = found.path.removeprefix(f"{block.path}.")
        args = (self.resolve(found.given), state)
        block.nodes.append(Node("call", name, args, {}, (result,), found.location, block=child))
        self.cut |= {result, *others}
        self.same.update(dict.fromkeys(others, result))

    def _leaf(self, call: Call) -> Leaf | None:
        if call.stands_for_function:
            return probing.convolution(call.module) or probing.function(call.module)
        key = probing.signature(call.module)
        if key not in self.leaves:
            self.leaves[key] = _in_own_dtype(probing.probe(call.module), call.module)
        taken = [value for value in leaves(call.args) if isinstance(value, Value)]
        leaf = self.leaves[key] if len(taken) == 1 else None  # a norm with a gate is more than a norm
        if leaf is None and len(call.outputs) == 1:
            leaf = probe_experts(call, self.experts)
        rotary = probe_rotary(call, self.trace, self.uses) if leaf is None else None
        if rotary is not None:
            self.rotations.note(call, rotary)
        return leaf if rotary is None else rotary.leaf

    def _positions(self, value: Any) -> Any:
        """The tokens' positions for what only repeats them: on several axes, which are one for text."""
        positions = self.trace.inputs["position_ids"]
        repeats = isinstance(value, Value) and value.tensor.dtype == torch.int64 and value.tensor.ndim == 3
        return positions if repeats and torch.equal(value.tensor, positions.tensor.expand_as(value.tensor)) else value

    def _leaf_arguments(self, block: Block, call: Call, leaf: Leaf) -> tuple[Any, ...]:
        if leaf.kind == "Experts":
            return tuple(self.resolve(value) for value in experts_arguments(call) or ())
        given = [self.resolve(value) for value in leaves(call.args) if isinstance(value, Value)]
        given = [
            (self.constants.filled(block, arg.tensor, call.location) or arg) if isinstance(arg, Literal) else arg
            for arg in given
        ]
        if leaf.kind == "RotaryEmbedding":
            given = [self._positions(arg) for arg in given]
        return tuple(given if leaf.kind in ("RotaryEmbedding", "CausalConv1d") else given[:1])


def _before_transpose(block: Block, turned: Node) -> Value | None:
    """What a tensor was before its axes were exchanged, if a node puts them back where they were."""
    source = turned.args[0] if turned.form == "method" and turned.name in ("transpose", "permute") else None
    before = next((node for node in block.nodes if source in node.outputs), None)
    if before is None or before.form != "method" or before.name not in ("transpose", "permute"):
        return None
    first, second = _order(before), _order(turned)
    origin = before.args[0]
    in_place = [first[dim] for dim in second] == sorted(first)
    return origin if in_place and isinstance(origin, Value) else None


def _order(turned: Node) -> list[int]:
    """For each axis of the result of a `transpose` or `permute`, which one of the source it is."""
    ndim = turned.outputs[0].tensor.ndim
    dims = [dim % ndim for dim in turned.args[1:]]
    if turned.name == "permute":
        return dims
    order = list(range(ndim))
    order[dims[0]], order[dims[1]] = dims[1], dims[0]
    return order


def _in_own_dtype(leaf: Leaf | None, module: nn.Module) -> Leaf | None:
    """A linear layer whose parameters keep their data type, whatever the model's is, says so."""
    dtype = getattr(getattr(module, "weight", None), "dtype", TRACE_DTYPE)
    if leaf is None or leaf.kind != "Linear" or dtype == TRACE_DTYPE:
        return leaf
    return replace(leaf, keywords={**leaf.keywords, "dtype": DTYPES[dtype]})


def _casts(operation: Operation) -> bool:
    """Whether a cast changes a tensor: elsewhere the same line may be given a tensor that has the data type already."""
    source = operation.args[0] if operation.args else None
    changes = isinstance(source, Value) and source.tensor.dtype != operation.outputs[0].tensor.dtype
    return operation.name in CASTS and changes


def _place(operation: Operation) -> tuple[Location | None, str, torch.dtype | None]:
    """The line of a cast, what it is called there, and what it casts to."""
    return operation.location, operation.name, operation.outputs[0].tensor.dtype if operation.outputs else None


def _names(call: Call, lowering: _Lowering, block: Block) -> dict[Value, list[str]]:
    """What `call` called the values, aliases included, in the order the names were given; and what the block does."""
    names = dict(block.names)
    made = (value for item in block.nodes for value in item.outputs)
    for value in (*_all_values(call), *made):
        for held, called in lowering.rotations.names(lowering.resolve(value), value.names.get(call, [])):
            known = names.setdefault(held, [])
            known += [name for name in called if name not in known]
    return names


def _all_values(call: Call) -> Iterable[Value]:
    yield from (leaf for leaf in leaves(call.args) if isinstance(leaf, Value))
    for item in call.body:
        if isinstance(item, Call):
            yield from (leaf for leaf in leaves(item.args) if isinstance(leaf, Value))
        else:
            yield from (leaf for leaf in leaves((item.args, item.kwargs)) if isinstance(leaf, Value))
        yield from item.outputs


def _signature(call: Call, lowering: _Lowering) -> dict[str, Value]:
    """The tensors that `forward` was given, by the names of its parameters; those of a tuple are numbered."""
    named: dict[str, Value] = {}
    for name, arg in lowering.lifted.arguments(call).items():
        resolved_leaves = [lowering.resolve(leaf) for leaf in leaves(arg) if isinstance(leaf, Value)]
        given = lowering.rotations.of(tuple(resolved_leaves))
        for i, resolved in enumerate(given):
            if isinstance(resolved, Value) and resolved not in named.values():
                named[name if len(given) == 1 else f"{name}.{i}"] = resolved
    return named
