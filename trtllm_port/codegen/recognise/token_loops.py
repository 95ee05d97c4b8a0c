"""Recurrences that a module writes out as a Python loop over tokens, as one operation.

    for i in range(length):                       linear_attention(query, key, value, state, log_decay=…)
        state = decay * state + key[i]ᵀ value[i]
        outputs.append(query[i] @ state)

The loop begins with what the module got from its cache and ends with what it stores there. It is followed from the end
back; a state that came to be otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.record.state_log import StateLog
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

ADD, TIMES, CUT = words("add"), words("mul multiply"), words("getitem __getitem__")
TOLERANCE = 0.02  # of the trace's bfloat16, relative to the largest element

Item = Operation | Call


@dataclass(frozen=True)
class Step:
    """One token's: the state after it, and what key, value and decay led there."""

    state: Value
    key: Value
    value: Value
    decay: Any
    before: Value


def fuse_token_loops(body: list[Item]) -> list[Item]:
    """A call's body with a "linear_attention" in place of every loop over tokens.

    Raises:
        UnsupportedModelError: a state is stored that follows from no such loop.
    """
    for end in [item for item in body if isinstance(item, Operation) and item.name == "state_stored"]:
        joined = _Loop(body).fuse(end)
        if joined is None:
            StateLog().store(end.args[1], 0)  # refuses it
        else:
            body = joined
    return body


class _Loop:
    def __init__(self, body: list[Item]) -> None:
        self.body = body
        self.makers: dict[Value, Item] = {value: item for item in body for value in item.outputs}
        self.inside: list[Item] = []  # what the one operation stands for
        self.made: list[Operation] = []

    def fuse(self, end: Operation) -> list[Item] | None:
        """The body with the loop that ends in a stored state as one operation, or None: it is no such loop."""
        steps = self._steps(end.args[2])
        if not steps or len({id(step.decay) for step in steps}) > 1:
            return None
        read = self._maker(steps[0].before, "cache_state")
        found = self._outputs(steps)
        if read is None or found is None or read.args[1] != end.args[1]:
            return None
        queries, joined = found
        parts = [self._whole(column) for column in (queries, [s.key for s in steps], [s.value for s in steps])]
        query, key, value = (*parts,)
        if query is None or key is None or value is None or not _agrees(query, key, value, steps, joined):
            return None
        self._record(query, key, value, steps[0].decay, read, joined)
        place = self.body.index(joined)
        gone = {id(item) for item in (*self.inside, read, joined, end)}
        before, after = ([x for x in part if id(x) not in gone] for part in (self.body[:place], self.body[place:]))
        return [*before, *self.made, *after]

    def _maker(self, value: Any, *names: str) -> Operation | None:
        item = self.makers.get(value) if isinstance(value, Value) else None
        return item if isinstance(item, Operation) and canonical_name(item.name)[0] in names else None

    def _steps(self, state: Any) -> list[Step]:
        """The steps that lead to a state, first one first."""
        found: list[Step] = []
        while (step := self._step(state)) is not None:
            found.append(step)
            state = step.before
        return found[::-1]

    def _step(self, state: Any) -> Step | None:
        total = self._maker(state, *ADD)
        if total is None or len(total.args) != 2:
            return None
        for kept, added in (total.args, total.args[::-1]):
            product, outer = self._maker(kept, *TIMES), self._maker(added, "matmul")
            turned = self._maker(outer.args[0], "transpose") if outer is not None else None
            if product is None or outer is None or turned is None:
                continue
            self.inside += [total, product, outer, turned]
            decay, before = sorted(product.args, key=self._is_state)
            return Step(state, turned.args[0], outer.args[1], decay, before)
        return None

    def _is_state(self, arg: Any) -> bool:
        return self._maker(arg, *ADD, "cache_state") is not None

    def _outputs(self, steps: list[Step]) -> tuple[list[Value], Operation] | None:
        """What each state is multiplied by, and the operation that joins the products."""
        products = {
            item.args[1]: item
            for item in self.body
            if isinstance(item, Operation) and canonical_name(item.name)[0] == "matmul"
        }
        rows = [products[step.state] for step in steps if step.state in products]
        wanted = [row.outputs[0] for row in rows]
        joins = (item for item in self.body if isinstance(item, Operation) and item.name in ("cat", "concat"))
        joined = next((item for item in joins if list(leaves(item.args[0])) == wanted), None)
        if joined is None or len(rows) < len(steps):
            return None
        self.inside += rows
        return [row.args[0] for row in rows], joined

    def _whole(self, rows: Iterable[Value]) -> Value | None:
        """The tensor [B, H, L, …] whose tokens are given one by one."""
        cuts = [self._maker(row, *CUT) for row in rows]
        sources = {cut.args[0] for cut in cuts if cut is not None}
        if None in cuts or len(sources) != 1:
            return None
        self.inside += [cut for cut in cuts if cut is not None]
        source = sources.pop()
        parts = [cut.outputs[0].tensor for cut in cuts if cut is not None]
        same = isinstance(source, Value) and source.tensor.ndim == 4 and torch.equal(torch.cat(parts, 2), source.tensor)
        return source if same else None

    def _record(self, query: Value, key: Value, value: Value, decay: Any, read: Operation, joined: Operation) -> None:
        """The operations that take the loop's place; `linear_attention` takes tokens before heads."""
        exponent = self._maker(decay, "exp")
        logarithm = exponent.args[0] if exponent is not None else self._make("log", (decay,), decay.tensor.log(), read)
        log_decay = self._make("view", (logarithm, 1, 1, -1), decay.tensor.float().log().view(1, 1, -1), read)
        turned = [self._make("transpose", (x, 1, 2), x.tensor.transpose(1, 2), joined) for x in (query, key, value)]
        state = self._make("cache_state", read.args, torch.zeros(()), read)
        out = joined.outputs[0].tensor.transpose(1, 2)
        found = self._make("linear_attention", (*turned, state), out, joined, log_decay=log_decay, beta=None)
        self.made.append(Operation("transpose", (found, 1, 2), {}, joined.outputs, joined.location))

    def _make(self, name: str, args: tuple[Any, ...], tensor: Tensor, like: Operation, **options: Any) -> Value:
        value = Value(tensor)
        self.made.append(Operation(name, args, options, (value,), like.location))
        return value


def _agrees(query: Value, key: Value, value: Value, steps: list[Step], joined: Operation) -> bool:
    """Whether the recorded result is that of the recurrence."""
    queries, keys, values, decay = (x.tensor.float() for x in (query, key, value, steps[0].decay))
    state, outputs = steps[0].before.tensor.float(), []
    if decay.numel() != state.shape[1]:  # one for each head
        return False
    for i in range(len(steps)):
        state = decay.reshape(-1, 1, 1) * state + keys[:, :, i, :, None] * values[:, :, i, None]
        outputs.append(queries[:, :, i : i + 1] @ state)
    expected, found = torch.cat(outputs, 2), joined.outputs[0].tensor.float()
    tolerance = TOLERANCE * float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=tolerance)
