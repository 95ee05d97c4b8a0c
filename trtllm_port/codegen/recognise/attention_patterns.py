"""Attention that a model writes out: scores, biases, masks, softmax and the product with the values, as one operation.

    softmax(scale query keyᵀ + bias, where masked: -max) value   →   attention(query, key, value, mask=…, scale=…)

Where the model keeps no cache and computes all tokens anew, the port's cache takes keys and values before that.

The chain is followed from the softmax back to the product of queries and keys. It is replaced only if every step of it
is understood and if both ways give the recorded result; else all of it stays as it is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trtllm_port.codegen.ir.expressions import Float32
from trtllm_port.codegen.ir.module_paths import layer_number
from trtllm_port.codegen.ir.record import Attribute, Call, Literal, Operation, Value
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.recognise.constants import RANDOM, ConstantRecognizer, exact_number
from trtllm_port.codegen.recognise.torch_attention import NAME as TORCHS
from trtllm_port.codegen.recognise.torch_attention import (
    before_repeating,
    causal_content,
    first_heads,
    hidden_and_sloping,
    torch_attention,
)
from trtllm_port.codegen.record.attentions import compute_attention
from trtllm_port.codegen.rules.base import argument, numbers
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

SAME = words("to float type dropout contiguous view reshape clone")
ADD, TIMES, OVER = words("add"), words("mul multiply"), words("div truediv true_divide divide")
CLIPS = words("clip clamp")
ZEROS = words("zeros zeros_like new_zeros")
LOWEST = -1e4  # what hides a score is below
TOLERANCE = 0.02  # of the trace's bfloat16, relative to the largest element

Item = Operation | Call


@dataclass
class Scores:
    """What is known of a chain, from its end backwards.

    Attributes:
        factor: what the scores are multiplied by behind the place that was reached.
        added: biases with their factors.
        hidden: bool masks; True hides where the flag says so, else shows.
        zeroed: masks by which scores were multiplied, of what is shown; they must be hidden, too.
    """

    factor: float = 1.0
    added: list[tuple[Any, float]] = field(default_factory=list)
    hidden: list[tuple[Any, bool]] = field(default_factory=list)
    zeroed: list[Tensor] = field(default_factory=list)


def fuse_attention(call: Call, trace: Trace) -> list[Item]:
    """The body of a call, with an "attention" in place of every one that is written out."""
    layer = layer_number(call.path)
    body: list[Item] = []
    makers: dict[Value, Item] = {value: item for item in call.body for value in item.outputs}
    for item in call.body:
        is_torchs = isinstance(item, Operation) and item.name == TORCHS
        body += torch_attention(item, trace, layer, makers) if is_torchs and isinstance(item, Operation) else [item]
    for end in [item for item in body if isinstance(item, Operation) and item.name == "softmax"]:
        made = _Chain(body, trace, layer).fuse(end)
        if made is not None:
            new, position = made
            body[position : position + 1] = new
    return body


class _Chain:
    def __init__(self, body: list[Item], trace: Trace, layer: int | None) -> None:
        self.body = body
        self.trace = trace
        self.layer = layer
        self.makers: dict[Value, Item] = {value: item for item in body for value in item.outputs}
        self.made: list[Operation] = []

    def fuse(self, softmax: Operation) -> tuple[list[Operation], int] | None:
        """The operations that take the place of one of the body's, and which."""
        scores = Scores()
        product = self._back(softmax.args[0], scores)
        use = self._weighted(softmax.outputs[0])
        if product is None or use is None:
            return None
        parts = [self._heads(x) for x in (product[0], self._transposed(product[1]), use.args[1])]
        if any(part is None for part in parts):
            return None
        query, key, value = (part for part in parts if part is not None)
        mask = self._mask(scores, query, use)
        if mask is False or not self._agrees((query, key, value), mask, product[2], use.outputs[0].tensor):
            return None
        return self._attention((query, key, value), mask, product[2], use), self.body.index(use)

    def _back(self, value: Any, scores: Scores) -> tuple[Any, Any, float] | None:
        """(queries, transposed keys, scale), or None where a step is not understood."""
        while isinstance(value, Value):
            item = self.makers.get(value)
            if isinstance(item, Call) or item is None:
                return None
            name, exchanged = canonical_name(item.name)
            args = item.args[::-1] if exchanged else item.args
            if name in ("matmul", "bmm"):
                return args[0], args[1], scores.factor
            if name == "baddbmm":
                if not self._is_zero(args[0]):
                    scores.added.append((args[0], float(item.kwargs.get("beta", 1)) * scores.factor))
                one, other = (item.kwargs.get(f"batch{i}", args[i] if len(args) > i else None) for i in (1, 2))
                return one, other, float(item.kwargs.get("alpha", 1)) * scores.factor
            following = self._step(name, args, item, scores)
            if following is None:
                return None
            value = following
        return None

    def _is_constant(self, arg: Any) -> bool:
        """Whether a tensor follows from nothing but sizes, and tables that no checkpoint holds."""
        if isinstance(arg, Literal):
            return True
        item = self.makers.get(arg) if isinstance(arg, Value) else None
        if not isinstance(item, Operation) or item.name in RANDOM:
            return isinstance(arg, Attribute) and not arg.persistent
        given = (leaf for leaf in leaves((item.args, item.kwargs)) if isinstance(leaf, Value | Literal | Attribute))
        return all(map(self._is_constant, given))

    def _is_zero(self, arg: Any) -> bool:
        """Whether a tensor is made of zeros, which a product may be added to."""
        item = self.makers.get(arg)
        made = item is None or (isinstance(item, Operation) and canonical_name(item.name)[0] in ZEROS)
        return isinstance(arg, Value | Literal) and made and bool((arg.tensor == 0).all())

    def _step(self, name: str, args: tuple[Any, ...], item: Operation, scores: Scores) -> Any:
        """What the scores were before a step, which is noted."""
        if name in SAME:
            return args[0]
        if name in ADD and len(args) == 2:
            bias, rest = sorted(args, key=lambda arg: self._is_score(arg))
            if self._is_constant(bias) and _holds(bias, 0.0, None):
                scores.hidden.append((Literal(bias.tensor == 0), False))
            elif (shown := causal_content(bias, self.trace)) is not None:
                scores.hidden.append((Literal(shown), False))
            elif (parts := hidden_and_sloping(bias, self.trace)) is not None:
                scores.hidden.append((Literal(parts[0]), False))
                scores.added.append((Literal(parts[1]), scores.factor))
            else:
                scores.added.append((bias, scores.factor))
            return rest
        number = _number(args[1], self.trace) if len(args) > 1 else None
        if name in TIMES and number is None and self._is_constant(args[1]) and _holds(args[1], 0.0, 1.0):
            scores.zeroed.append(args[1].tensor != 0)
            return args[0]
        if name in TIMES and number is not None:
            scores.factor = _as_precise(scores.factor * number, number)
            return args[0]
        if name in OVER and number is not None:
            scores.factor = _as_precise(scores.factor / number, number)
            return args[0]
        if name in ("max", "maximum") and number is not None and number < LOWEST:
            return args[0]
        if name in CLIPS and self._hides_nothing(item):
            return args[0]
        if name == "masked_fill" and (_number(args[2], self.trace) or 0) < LOWEST:
            scores.hidden.append((args[1], True))
            return args[0]
        if name == "where" and (_number(args[2], self.trace) or 0) < LOWEST:
            scores.hidden.append((args[0], False))
            return args[1]
        return None

    def _hides_nothing(self, clip: Operation) -> bool:
        """Whether what is cut off lies beyond what hides a score, on both sides."""
        bounds = [(argument(clip, name, place), sign) for name, place, sign in (("min", 1, 1), ("max", 2, -1))]
        return all(
            bound is None or ((number := _number(bound, self.trace)) is not None and sign * number < LOWEST)
            for bound, sign in bounds
        )

    def _is_score(self, arg: Any) -> bool:
        """Whether a tensor comes from a product of this body, and is not a mask or a bias."""
        seen = arg
        while isinstance(seen, Value) and isinstance(item := self.makers.get(seen), Operation):
            name, exchanged = canonical_name(item.name)
            if name in ("matmul", "bmm", "baddbmm"):
                return True
            seen = item.args[-1] if exchanged else item.args[1 if name == "where" else 0]
        return False

    def _weighted(self, value: Value) -> Operation | None:
        """The product of the attention weights with the values."""
        seen: set[Value] = set()
        while True:
            seen.add(value)
            users = [
                item
                for item in self.body
                if (value in item.args if isinstance(item, Operation) else value in leaves(item.args))
            ]
            for item in users:
                name = canonical_name(item.name)[0] if isinstance(item, Operation) else "dropout"
                if isinstance(item, Operation) and name in ("matmul", "bmm") and item.args[0] is value:
                    return item
            passing = (u for u in users if self._passes(u) and u.outputs and u.outputs[0] not in seen)
            following = next(passing, None)  # a dropout may give back what it was given
            if following is None:
                return None
            value = following.outputs[0]

    def _passes(self, item: Item) -> bool:
        if isinstance(item, Call):
            return type(item.module).__name__ == "Dropout"
        return canonical_name(item.name)[0] in SAME

    def _transposed(self, value: Any) -> Any:
        item = self.makers.get(value)
        name = canonical_name(item.name)[0] if isinstance(item, Operation) else ""
        if not isinstance(item, Operation) or name not in ("transpose", "permute"):
            return None
        ndim = item.outputs[0].tensor.ndim
        if name == "permute":
            order = numbers(item, "dims")
            order = (*order[:-2], order[-1], order[-2])
            made = Value(value.tensor.transpose(-1, -2), dict(value.names))
            beside = Operation("permute", (item.args[0], *order), {}, (made,), item.location)
            self.body.insert(self.body.index(item), beside)
            return made
        return item.args[0] if {dim % ndim for dim in item.args[1:]} == {ndim - 1, ndim - 2} else None

    def _heads(self, value: Any) -> Value | None:
        """[B, N, L, H] of what is perhaps [B N, L, H]."""
        if not isinstance(value, Value):
            return None
        if value.tensor.ndim == 4:
            return value
        item = self.makers.get(value)
        source = item.args[0] if isinstance(item, Operation) and item.name in ("view", "reshape") else None
        return source if isinstance(source, Value) and source.tensor.ndim == 4 else None

    # masks

    def _mask(self, scores: Scores, query: Value, use: Operation) -> Value | bool | None:
        """One mask of all that is added and hidden; None if there is nothing, False if it cannot be said."""
        if any(not any(_same(zeroed, mask, hides) for mask, hides in scores.hidden) for zeroed in scores.zeroed):
            return False
        total: Value | None = None
        for bias, factor in scores.added[::-1]:
            term = self._bias(bias, query, use)
            if term is None:
                return False
            if not math.isclose(factor, 1.0):
                term = self._make("mul", (term, factor), term.tensor * factor, use)
            total = term if total is None else self._make("add", (total, term), total.tensor + term.tensor, use)
        for mask, hides in scores.hidden:
            if not isinstance(mask, Value | Literal) or mask.tensor.dtype != torch.bool:
                return False
            if total is None and len(scores.hidden) == 1:
                if isinstance(mask, Literal):  # to be recognised as what it is
                    mask, hides = Literal(mask.tensor ^ (not hides)), True
                return mask if not hides else self._make("logical_not", (mask,), ~mask.tensor, use)
            lowest = torch.finfo(query.tensor.dtype).min
            if total is None:
                return False
            if isinstance(mask, Literal):
                shown = mask.tensor ^ hides
                mask, hides = self._make("logical_not", (Literal(~shown),), shown, use), False
            order = (mask, lowest, total) if hides else (mask, total, lowest)
            wide = torch.where(mask.tensor if hides else ~mask.tensor, lowest, total.tensor)
            total = self._make("where", order, wide, use)
        return total

    def _bias(self, bias: Any, query: Value, use: Operation) -> Value | None:
        """What is added to the scores, as [B, N or 1, L, S] in the queries' data type."""
        if isinstance(bias, Value) and self._is_computed(bias):
            if bias.tensor.ndim != 4:
                return None
            if bias.tensor.dtype == query.tensor.dtype:
                return bias
            return self._make("to", (bias, query.tensor.dtype), bias.tensor.to(query.tensor.dtype), use)
        tensor = bias.tensor if isinstance(bias, Value | Literal) else None
        heads = query.tensor.shape[1]
        options = ConstantRecognizer(self.trace.sample).alibi(tensor, heads) if tensor is not None else None
        if tensor is None or options is None:
            return None
        rows, slots = query.tensor.shape[0], tensor.shape[-1]
        wide = (
            tensor.float().reshape(-1, heads, tensor.shape[-2], slots)[:1].expand(rows, -1, query.tensor.shape[2], -1)
        )
        inputs = self.trace.inputs["position_ids"], self.trace.inputs["cache"]
        made = self._make("alibi_bias", (*inputs, heads), wide, use, options)
        return self._make("to", (made, query.tensor.dtype), wide.to(query.tensor.dtype), use)

    def _is_computed(self, value: Value) -> bool:
        """Whether a value is a mask that was recorded as one, or follows from one; constants are recognised instead."""
        return value.tensor.ndim == 4 and value.tensor.shape[1] == 1

    def _make(
        self, name: str, args: tuple[Any, ...], tensor: Tensor, like: Operation, options: dict[str, Any] | None = None
    ) -> Value:
        value = Value(tensor)
        self.made.append(Operation(name, args, options or {}, (value,), like.location))
        return value

    # the result

    def _agrees(self, inputs: tuple[Value, ...], mask: Any, scale: float, found: Tensor) -> bool:
        query, key, attended = (value.tensor.float() for value in inputs)
        bias = mask.tensor if isinstance(mask, Value) else None
        bias = bias.float() if bias is not None and bias.dtype != torch.bool else bias
        expected = compute_attention(query, key, attended, bias, scale).transpose(1, 2)
        if not bool(expected.isfinite().all()):
            return False
        tolerance = TOLERANCE * float(expected.abs().max())
        return torch.allclose(found.float().reshape(expected.shape), expected, rtol=0, atol=tolerance)

    def _attention(self, inputs: tuple[Value, ...], mask: Any, scale: float, use: Operation) -> list[Operation]:
        result = use.outputs[0]
        heads_last = result.tensor.reshape(
            inputs[0].tensor.shape[0], inputs[0].tensor.shape[1], *result.tensor.shape[-2:]
        )
        keywords = {"mask": mask if isinstance(mask, Value) else None, "scale": scale}
        query, key, value = inputs
        wide, narrow = query.tensor.dtype, value.tensor.dtype
        before = [before_repeating(one, self.makers) for one in (key, value)]
        if all(before):
            key, value = (first_heads(one, use.location, self.made) for one in before if one is not None)
        if not self.trace.keeps_cache and self.layer is not None:
            given = self.trace.inputs["cache"], self.layer, key, value
            key, value = (Value(one.tensor.clone(), dict(one.names)) for one in (key, value))
            self.made.append(Operation("cache_update", given, {}, (key, value), use.location))
        if wide != narrow:  # scores in more precision than values
            value = self._make("to", (value, wide), value.tensor.to(wide), use)
        attended = heads_last.transpose(1, 2).contiguous()
        out = self._make("attention", (query, key, value), attended.to(wide), use, keywords)
        if wide != narrow:
            out = self._make("to", (out, narrow), attended, use)
        if result.tensor.ndim == 4:
            self.made.append(Operation("transpose", (out, 1, 2), {}, (result,), use.location))
            return self.made
        merged = self._make("transpose", (out, 1, 2), heads_last, use)
        for i, item in enumerate(self.body):
            is_view = isinstance(item, Operation) and item.name in ("view", "reshape") and item.args[0] is result
            if is_view and isinstance(item, Operation) and item.outputs[0].tensor.shape == heads_last.shape:
                self.body[i] = replace(item, args=(merged, *heads_last.shape))
        return [*self.made, replace(use, name="view", args=(merged, *result.tensor.shape))]


def _holds(arg: Any, zero: float, other: float | None) -> bool:
    """Whether a tensor holds two numbers: zero, and the other or, if that is None, one that hides a score."""
    tensor = arg.tensor if isinstance(arg, Value | Literal) else None
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return False
    rest = tensor[tensor != zero]
    return bool((rest < 0.9 * LOWEST).all() if other is None else (rest == other).all())


def _same(shown: Tensor, mask: Any, hides: bool) -> bool:
    return isinstance(mask, Value | Literal) and torch.equal(shown, mask.tensor ^ hides)


def _as_precise(number: float, origin: float) -> float:
    """A number that follows from one that went through float32, perhaps."""
    return Float32(number) if isinstance(origin, Float32) else number


def _number(arg: Any, trace: Trace) -> float | None:
    if isinstance(arg, Attribute) and not arg.persistent and math.prod(arg.shape) == 1:
        return exact_number(arg, trace)
    if isinstance(arg, int | float) and not isinstance(arg, bool):
        return float(arg)
    if isinstance(arg, Literal) and arg.tensor.numel() == 1:
        return float(arg.tensor)
    if isinstance(arg, Value) and arg.tensor.numel() == 1:
        return float(arg.tensor)
    return None
