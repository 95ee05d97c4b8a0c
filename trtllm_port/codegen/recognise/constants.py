"""What tensors without weights are: recognised by content, whatever made them, and made anew in the port's words.

Hugging Face's older models compute position ids, masks and position tables from sizes, in `__init__` or on the way.
Such a tensor has another shape and other content at every size; what it is, is the same. Every sample is recognised on
its own, and samples that are not recognised alike do not merge: a coincidence makes no port.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.dtypes import DTYPES, TRACE_DTYPE
from trtllm_port.codegen.ir.expressions import Single
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Attribute, Literal, Location, Operation, Value
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.codegen.recognise.batch_rows import Rows
from trtllm_port.codegen.recognise.position_numbers import Positional
from trtllm_port.codegen.rules.elementwise import BINARY
from trtllm_port.foundation.words import words
from trtllm_port.layers import alibi_slopes

LARGEST_OFFSET = 16  # of learned positions: 2 in BART's family, 1 more than the padding token's number in RoBERTa's
HALF_PRECISION = 0.06  # tables are made in the trace's precision: bfloat16 angles of a few dozen positions
RANDOM = words("rand randn randint randperm empty bernoulli normal multinomial")
SELECTIONS = words("gather getitem __getitem__ index_select expand expand_as repeat view reshape embedding")
BROADCASTING = frozenset(BINARY) - {"matmul", "bmm"} | {"where", "masked_fill"}
SINUSOID_FORMS: tuple[dict[str, bool], ...] = (
    *({}, {"interleaved": True}, {"inclusive": True}),
    {"inclusive": True, "cosines_first": True},
)


@dataclass(frozen=True)
class Recognizer:
    """Tells what a tensor of one traced step is.

    Attributes:
        sample: the step's sizes: `past` cached tokens, then `length` new ones.
    """

    sample: Sample

    @property
    def positions(self) -> Tensor:
        """[L]: the positions of the new tokens."""
        return torch.arange(self.sample.past, self.sample.past + self.sample.length)

    def offset_of_positions(self, tensor: Tensor, shapes: int = 2) -> int | None:
        """How much more than the tokens' positions an integer tensor [1 or B, L] is, or None if it is none.

        Of one dimension, [L], only if `shapes` is 1.
        """
        if tensor.dtype not in (torch.int64, torch.int32) or tensor.ndim != shapes:
            return None
        if tensor.shape[-1] != self.sample.length or (shapes == 2 and tensor.shape[0] not in (1, self.sample.batch)):
            return None
        offset = int(tensor.flatten()[0]) - self.sample.past
        return offset if 0 <= offset <= LARGEST_OFFSET and bool((tensor == self.positions + offset).all()) else None

    def is_distances(self, tensor: Tensor) -> bool:
        """Whether an integer tensor [L, S] says how far every slot lies before every token."""
        slots = torch.arange(self.sample.past + self.sample.length)
        return tensor.dtype == torch.int64 and torch.equal(tensor, self.positions[:, None] - slots)

    def mask(self, tensor: Tensor) -> tuple[int | None, bool] | None:
        """(window or None, whether True means hidden) of a bool mask [*, L, S], or None if it is no causal mask."""
        length, slots = self.sample.length, self.sample.past + self.sample.length
        if tensor.dtype != torch.bool or tensor.ndim < 2 or tensor.shape[-2:] != (length, slots):
            return None
        rows = tensor.reshape(-1, length, slots)
        if not bool((rows == rows[0]).all()):
            return None
        for mask, hidden in ((rows[0], False), (~rows[0], True)):
            query, slot = self.positions[:, None], torch.arange(slots)[None]
            causal = slot <= query
            window = max(1, int(mask[-1].sum()))
            if torch.equal(mask, causal):
                return None, hidden
            if torch.equal(mask, causal & (slot > query - window)):
                return window, hidden
        return None

    def alibi(self, tensor: Tensor, heads: int) -> dict[str, Any] | None:
        """The options of the `alibi_bias`, for so many heads, that a tensor [*, heads, 1 or L, S] is; or None.

        All numbers of a row may be shifted alike: a softmax does not see it. Batch and heads may be one dimension.
        """
        slots = self.sample.past + self.sample.length
        if not tensor.is_floating_point() or tensor.ndim < 3 or tensor.shape[-1] != slots or tensor.numel() % heads:
            return None
        if tensor.shape[-3] % heads or tensor.shape[-2] not in (1, self.sample.length):
            return None
        rows = tensor.float().reshape(-1, heads, tensor.shape[-2], slots)
        slopes = (rows[..., -1] - rows[..., 0]) / (slots - 1)
        straight = rows[..., :1] + slopes[..., None] * torch.arange(slots)
        power = 2 ** math.floor(math.log2(heads))
        steepest = float(slopes[0, 0, 0])
        if steepest <= 0 or not torch.allclose(rows, straight, rtol=0, atol=0.01 * float(rows.abs().max())):
            return None
        max_bias = round(-power * math.log2(steepest) * 4) / 4
        same = torch.allclose(slopes, alibi_slopes(heads, max_bias)[:, None].expand(slopes.shape), rtol=0.02, atol=0)
        options: dict[str, Any] = {} if max_bias == 8.0 else {"max_bias": max_bias}
        options |= {} if rows[..., 0].any() else {"from_first": True}
        return options if same else None

    def sinusoid(self, tensor: Tensor) -> tuple[int, dict[str, bool]] | None:
        """The offset of positions and the options that make `sinusoidal_positions` give a tensor [*, L, D]; or None.

        In half precision several of them may come near: the nearest one counts.
        """
        length, dim = self.sample.length, tensor.shape[-1] if tensor.ndim >= 2 else 0
        if not tensor.is_floating_point() or dim < 4 or dim % 2 or tensor.shape[-2] != length:
            return None
        rows = tensor.reshape(-1, length, dim).float()
        found: tuple[int, dict[str, bool]] | None = None
        least = math.inf
        for offset in range(LARGEST_OFFSET):
            for form in SINUSOID_FORMS:
                errors = (rows - sinusoid(self.positions + offset, dim, **form)).abs()
                if bool((errors < HALF_PRECISION).all()) and float(errors.mean()) < least:
                    found, least = (offset, form), float(errors.mean())
        return found


def sinusoid(
    positions: Tensor, dim: int, *, interleaved: bool = False, inclusive: bool = False, cosines_first: bool = False
) -> Tensor:
    """`layers.sinusoidal_positions` in torch: [L, D] for positions [L]."""
    exponents = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2 - inclusive)
    angles = positions[:, None].float() * 10000.0**-exponents
    parts = (angles.cos(), angles.sin()) if cosines_first else (angles.sin(), angles.cos())
    return torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)


def _unrounded(operation: Operation, made: Tensor, given: list[Tensor | None]) -> Tensor:
    """What an operation over constants gives; of a number that is cast to the model's data type, the number."""
    if operation.name in CASTS and made.dtype == TRACE_DTYPE and made.numel() == 1 and given[0] is not None:
        return given[0].reshape(made.shape)
    return made


def uniform(tensor: Tensor) -> bool | int | float | None:
    """The number that all elements of a tensor are, or None."""
    if not tensor.numel() or tensor.is_complex():
        return None
    first = tensor.flatten()[0]
    number: bool | int | float = first.item()
    return number if bool((tensor == first).all()) else None


class Recognition:
    """Puts what a `Recognizer` finds into blocks, as nodes over the inputs of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.inputs = trace.inputs
        self.model = trace.model
        self.bfloat16_buffers = trace.bfloat16_buffers
        self.rows = Rows(trace.sample.batch)
        self.by_position = Positional(trace.sample.batch, self.own_positions, self.own_distances)
        self.positional = {trace.inputs["position_ids"]}  # what follows from positions and constants alone
        self.recognizer = Recognizer(trace.sample)

    def outputs(self, block: Block, operation: Operation) -> dict[Value, Value | Literal] | None:
        """What the outputs of an operation are, where they need no node of their own: constants and the like."""
        repeated = self.rows.unchanged(operation)
        if repeated is not None:
            return {operation.outputs[0]: repeated}
        tensors = [
            leaf for leaf in leaves((operation.args, operation.kwargs)) if isinstance(leaf, Value | Attribute | Literal)
        ]
        content = [constant_of(leaf, self.model) for leaf in tensors]
        is_constant = all(c is not None for c in content) if tensors else operation.name not in RANDOM
        if tensors and operation.name in SELECTIONS and content[0] is not None:
            is_constant = is_constant or uniform(content[0]) is not None  # a part of what is the same everywhere
        only_positions = all(c is not None or t in self.positional for t, c in zip(tensors, content, strict=True))
        found: dict[Value, Value | Literal] = {}
        for value in operation.outputs:
            known: Value | Literal | None = self.positions(block, value, operation.location)
            made = self._constant(operation, value, tensors, content) if is_constant else None
            is_known = made is not None and self.by_position.of_distances(made)  # exactly, unlike a mask by its content
            if known is None and (is_constant or only_positions) and not is_known:
                known = self.computed(block, value, operation.location)
            if isinstance(known, Value):
                self.positional.add(known)
            elif only_positions and not is_constant:
                self.positional.add(value)
            known = known or made
            if known is not None:
                found[value] = known
        return found if len(found) == len(operation.outputs) and found else None

    def _constant(
        self, operation: Operation, value: Value, tensors: list[Any], content: list[torch.Tensor | None]
    ) -> Literal:
        stays = any(stays_bfloat16(leaf, self.bfloat16_buffers) for leaf in tensors)
        made = Literal(_unrounded(operation, value.tensor, content), stays)
        self.by_position.note(operation, made)
        return made

    def without_fillings(self, block: Block, operation: Operation) -> Operation:
        """A constant whose elements are all the same is a number beside tensors, or a function of the port."""
        tensors = [leaf for leaf in leaves(operation.args) if isinstance(leaf, Value | Attribute)]
        shapes = [
            stored_tensor(self.model, t.path).shape if isinstance(t, Attribute) else t.tensor.shape for t in tensors
        ]
        spread = (
            operation.name in BROADCASTING
            and torch.Size(np.broadcast_shapes(*shapes)) == operation.outputs[0].tensor.shape
        )

        def replaced(arg: Any) -> Any:
            if not isinstance(arg, Literal) or arg.tensor.numel() == 1:
                return arg
            if operation.name in SELECTIONS and self.recognizer.offset_of_positions(arg.tensor, 1) is not None:
                return self._for_all_rows(block, arg.tensor, operation)
            is_taken = operation.name in BROADCASTING or operation.name == "gather"
            own = self.by_position.computed(block, arg) if is_taken else None
            if own is not None:
                return own
            number = uniform(arg.tensor) if spread else None
            if number is not None:
                return Literal(arg.tensor.flatten()[0])
            return self.filled(block, arg.tensor, operation.location) or arg

        return replace(operation, args=map_structure(replaced, operation.args))

    def _for_all_rows(self, block: Block, positions: Tensor, operation: Operation) -> Value:
        """The position ids in place of [L]: what is looked up by them becomes [B, L, …], as in other models."""
        for value in operation.outputs:
            self.rows.add(value)
        own = self.own_positions(block, positions, operation.location)
        assert own is not None  # the caller knows
        return own

    def own_positions(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """The position ids [B, L] (more some offset) for positions [L] that are the same for all rows, or None."""
        offset = self.recognizer.offset_of_positions(tensor, 1)
        return None if offset is None else self._shifted(block, offset, Value(tensor), location)

    def own_distances(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """The distances [B, L, S] for those that are the same for all rows, [L, S], or None."""
        if not self.recognizer.is_distances(tensor):
            return None
        arguments = self.inputs["position_ids"], self.inputs["cache"]
        return _made(block, "slot_distances", arguments, {}, tensor.expand(self.rows.count, -1, -1), location)

    def positions(self, block: Block, value: Value, location: Location | None) -> Value | None:
        """The position ids (more some offset) that a value is."""
        offset = self.recognizer.offset_of_positions(value.tensor)
        return None if offset is None else self._shifted(block, offset, value, location)

    def computed(self, block: Block, value: Value, location: Location | None) -> Value | None:
        """The mask or the sinusoids that a value is, which follows from nothing but positions and sizes."""
        tensor = value.tensor
        mask = self.recognizer.mask(tensor)
        if mask is not None:
            return self._mask(block, *mask, tensor, location)
        found = self.recognizer.sinusoid(tensor) if tensor.dtype in DTYPES else None
        if found is None:
            return None
        offset, options = found
        positions = self._shifted(block, offset, value, location)
        rows = self.inputs["position_ids"].tensor.shape[0]
        wide = tensor.expand(rows, *tensor.shape[-2:] if tensor.ndim == 2 else tensor.shape[1:])
        table = _made(block, "sinusoidal_positions", (positions, tensor.shape[-1]), options, wide.float(), location)
        made = table
        if tensor.dtype != torch.float32:
            made = Value(wide)
            block.nodes.append(Node("cast", DTYPES[tensor.dtype], (table,), {}, (made,), location))
        self.rows.added |= {made} if tensor.ndim == 2 else set()
        return made

    def filled(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """Integers [B, L] that are all the same, as token types are unless a caller says something else."""
        number, like = uniform(tensor), self.inputs["input_ids"]
        if number is None or tensor.dtype != torch.int64 or tensor.ndim != 2:
            return None
        if tensor.shape[1] != like.tensor.shape[1] or tensor.shape[0] not in (1, like.tensor.shape[0]):
            return None
        return _made(block, "full_like", (like, number), {}, torch.full_like(like.tensor, int(number)), location)

    def _shifted(self, block: Block, offset: int, value: Value, location: Location | None) -> Value:
        positions = self.inputs["position_ids"]
        if not offset:
            return positions
        shifted = Value(positions.tensor + offset, value.names)
        block.nodes.append(Node("operator", "+", (positions, offset), {}, (shifted,), location))
        return shifted

    def _mask(self, block: Block, window: int | None, hidden: bool, tensor: Tensor, location: Location | None) -> Value:
        wide = tensor.reshape(-1, *tensor.shape[-2:])[:1, None].expand(
            self.inputs["input_ids"].tensor.shape[0], -1, -1, -1
        )
        arguments = self.inputs["position_ids"], self.inputs["cache"]
        mask = _made(block, "causal_mask", arguments, {"window": window}, ~wide if hidden else wide, location)
        if not hidden:
            return mask
        inverted = Value(wide)
        block.nodes.append(Node("operator", "~", (mask,), {}, (inverted,), location))
        return inverted


def _made(
    block: Block,
    function: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    tensor: Tensor,
    location: Location | None,
) -> Value:
    value = Value(tensor)
    shapes = tuple(args[0].tensor.shape)
    block.nodes.append(Node("function", function, args, options, (value,), location, shapes))
    return value


def stored_tensor(model: nn.Module, path: str) -> torch.Tensor:
    """A parameter or buffer by its full name."""
    owner, _, name = path.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(owner), name)
    return tensor


def stays_bfloat16(arg: Any, buffers: frozenset[str]) -> bool:
    """Whether a constant is in bfloat16 whatever the model's precision is.

    Args:
        arg: a constant of the record.
        buffers: those that are.
    """
    return arg.stays_bfloat16 if isinstance(arg, Literal) else isinstance(arg, Attribute) and arg.path in buffers


def exact_number(attribute: Attribute, trace: Trace) -> float:
    """The number in a buffer of the model's data type before it was rounded: what a model in float32 has there."""
    return Single(stored_tensor(trace.in_float32(), attribute.path).item())


def constant_of(arg: Any, model: nn.Module) -> torch.Tensor | None:
    """The content of a literal or of a buffer that no checkpoint holds."""
    if isinstance(arg, Literal):
        return arg.tensor
    if isinstance(arg, Attribute) and not arg.persistent:
        return model.get_buffer(arg.path)
    return None
