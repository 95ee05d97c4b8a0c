"""Experts that a module computes in a Python loop of its own, as one computation for all experts and all tokens.

    for expert in experts that were chosen:                   output = all experts of all tokens
        states = expert's computation of its tokens           combine_experts(output, indices, weights)
        output.index_add_(0, tokens, states * weights)

Which experts a loop goes through depends on the data. So the module is asked for each expert alone, as if all tokens
had chosen it: experts that differ in nothing but their number, by which they take their part of a parameter, are one
batched computation. Of experts without parameters (an identity) the weights are summed first.

T tokens, A experts of one token
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.recognise.vectorization import NotVectorizable, Operand, Vectorizer, nameless, takes_all
from trtllm_port.codegen.record.probing import function
from trtllm_port.codegen.record.recorder import Recorder
from trtllm_port.codegen.rules.base import argument
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

MOST = 4096  # experts
TIMES, ZEROS = words("mul multiply"), words("zeros zeros_like new_zeros")
TOLERANCE = 0.02  # of the trace's bfloat16, relative to the largest element


@dataclass(frozen=True)
class ExpertInputs:
    """What a module of experts takes: hidden states, indices and weights [T, A]."""

    states: Value
    indices: Value
    weights: Value

    @classmethod
    def of(cls, call: Call) -> ExpertInputs | None:
        """The arguments of a call, if they are those."""
        given = list(dict.fromkeys(leaf for leaf in leaves(call.args) if isinstance(leaf, Value)))
        indices = [value for value in given if value.tensor.dtype == torch.int64 and value.tensor.ndim == 2]
        if len(given) != 3 or len(indices) != 1:
            return None
        shape = indices[0].tensor.shape
        weights = [value for value in given if value is not indices[0] and value.tensor.shape == shape]
        states = [value for value in given if value is not indices[0] and value not in weights]
        return cls(states[0], indices[0], weights[0]) if len(weights) == len(states) == 1 else None

    def arguments(self, call: Call, indices: Tensor, weights: Tensor) -> dict[str, Any]:
        """The arguments of a call for another choice."""
        other = {self.states: self.states.tensor, self.indices: indices, self.weights: weights}
        return {name: other[arg] if isinstance(arg, Value) else arg for name, arg in call.args.items()}


@dataclass(frozen=True)
class Expert:
    """The record of a module that computes nothing but one expert, for all tokens."""

    number: int
    record: Call

    @property
    def kind(self) -> list[str]:
        """What is equal in experts of one kind."""
        return [item.path if isinstance(item, Call) else item.name for item in _items(self.record)]

    @property
    def end(self) -> Operation | None:
        """The operation that adds what it computed to the sum over experts; None: it adds nothing."""
        operations = (item for item in _items(self.record) if isinstance(item, Operation))
        return next((one for one in operations if canonical_name(one.name)[0] == "index_add"), None)

    @property
    def makers(self) -> dict[Value, Operation | Call]:
        return {value: item for item in _items(self.record) for value in item.outputs}


class ExpertLoops:
    """Finds the loops over experts among the calls of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._known: dict[Call, Call] = {}

    def vectorized(self, call: Call) -> Call:
        """A call as it is, or with its loop over experts as a computation that depends on no data."""
        if call not in self._known:
            self._known[call] = self._vectorized(call)
        return self._known[call]

    def _vectorized(self, call: Call) -> Call:
        given = ExpertInputs.of(call) if call.host_reads and len(call.outputs) == 1 else None
        if given is None:
            return call
        kinds = [list(group) for _, group in groupby(self._experts(call, given), lambda expert: expert.kind)]
        try:
            same = bool(kinds) and self._agrees(call, given, kinds)
            body = _AllExperts(self.model, call, given, given, kinds).body(call.outputs[0]) if same else []
        except NotVectorizable:
            return call
        return replace(call, body=body, host_reads=[]) if same else call

    def _experts(self, call: Call, given: ExpertInputs) -> Iterator[Expert]:
        """Each expert alone, as if all tokens had chosen it, as often as they choose."""
        recorder = Recorder(self.model)
        like = given.indices.tensor
        for number in range(MOST):
            ones = torch.ones_like(like, dtype=given.weights.tensor.dtype)
            try:
                with torch.no_grad(), recorder:
                    call.module(**given.arguments(call, torch.full_like(like, number), ones))
            except Exception:  # any: Hugging Face's code runs here; there are no more experts
                return
            assert recorder.root is not None  # the module was called
            yield Expert(number, recorder.root)

    def _agrees(self, call: Call, given: ExpertInputs, kinds: list[list[Expert]]) -> bool:
        """Whether all is what the module computes for tokens that chose any of the experts."""
        generator = torch.Generator().manual_seed(0)
        tokens, chosen = given.indices.tensor.shape
        indices = torch.rand(tokens, sum(map(len, kinds)), generator=generator).argsort(-1)[:, :chosen]
        weights = torch.rand(tokens, chosen, generator=generator).to(given.weights.tensor.dtype)
        other = ExpertInputs(given.states, Value(indices), Value(weights))
        with torch.no_grad():
            expected = call.module(**given.arguments(call, indices, weights))
        found = _AllExperts(self.model, call, given, other, kinds).output().tensor
        error = (found.float() - expected.float()).abs().max()
        return found.shape == expected.shape and bool(error <= TOLERANCE * expected.float().abs().max())


def _items(call: Call) -> Iterator[Operation | Call]:
    """All operations in order, with those of the modules that it calls; calls of activations stay what they are.

    The port gets those by the config's name for them: their operations would be those of one activation.
    """
    for item in call.body:
        if isinstance(item, Call) and function(item.module) is None:
            yield from _items(item)
        else:
            yield item


class _AllExperts:
    """What all experts compute, as operations.

    Args:
        model: the model.
        call: of the module.
        taken: what it takes.
        given: what takes its place.
        kinds: its experts, those of one kind together.
    """

    def __init__(
        self, model: nn.Module, call: Call, taken: ExpertInputs, given: ExpertInputs, kinds: list[list[Expert]]
    ) -> None:
        self.model = model
        self.call = call
        self.inputs = {getattr(taken, name): getattr(given, name) for name in ("states", "indices", "weights")}
        self.given = given
        self.kinds = kinds
        self.made: list[Operation | Call] = []

    def body(self, output: Value) -> list[Operation | Call]:
        """The operations, of which the last one gives `output`."""
        self.output()
        return [*self.made[:-1], replace(self.made[-1], outputs=(output,))]

    def output(self) -> Value:
        """What they give."""
        first = self.kinds[0][0]
        sums = [total for kind in self.kinds if (total := self._sum(kind)) is not None]
        if first.end is None or not sums:
            raise NotVectorizable("the first expert adds nothing")
        vectorizer = self._vectorizer(self.kinds[0])
        whole = sums[0]
        for other in sums[1:]:
            (whole,) = vectorizer.record("add", (whole, other), first.end)
        vectorizer.known[first.end.outputs[0]] = Operand(whole)
        found = vectorizer[first.record.outputs[0]].arg
        assert isinstance(found, Value)  # it follows from the sum
        return found

    def _vectorizer(self, kind: list[Expert]) -> Vectorizer:
        first = kind[0]
        taken = ((arg, self.call.args[name]) for name, arg in first.record.args.items() if isinstance(arg, Value))
        known: dict[Any, Operand] = {arg: Operand(self.inputs[own]) for arg, own in taken}
        return Vectorizer(self.model, self.call, first.number, len(kind), first.makers, known, self.made)

    def _sum(self, kind: list[Expert]) -> Value | None:
        """The weighted sum over the experts of one kind; None: they add nothing."""
        end, makers = kind[0].end, kind[0].makers
        if end is None:
            return None
        begin, dim, tokens, added = (argument(end, key, n) for n, key in enumerate(("input", "dim", "index", "source")))
        count = len(self.given.indices.tensor)
        if dim != 0 or not takes_all(tokens.tensor, count) or not _is_zeros(makers.get(begin)):
            raise NotVectorizable("a sum over experts that begins with something")
        vectorizer = self._vectorizer(kind)
        output = vectorizer[self._unweighted(added, vectorizer)]
        if not output.batched:
            return self._alike(kind, output.arg, vectorizer, end)
        args = (output.arg, self.given.indices, self.given.weights)
        return vectorizer.record("combine_experts", args, end)[0]

    def _unweighted(self, added: Any, vectorizer: Vectorizer) -> Any:
        """What is multiplied by the tokens' weights before it is added to a sum, and cast."""
        maker = vectorizer.makers.get(added)
        while isinstance(maker, Operation) and canonical_name(maker.name)[0] in CASTS:
            maker = vectorizer.makers.get(maker.args[0])
        if isinstance(maker, Operation) and canonical_name(maker.name)[0] in TIMES:
            for weight, other in (maker.args, maker.args[::-1]):
                part = vectorizer.makers.get(weight) if isinstance(weight, Value) else None
                if isinstance(part, Operation) and vectorizer.known.get(part.args[0]) == Operand(self.given.weights):
                    return other
        raise NotVectorizable("what is added to a sum over experts has no weights")

    def _alike(self, kind: list[Expert], output: Value, vectorizer: Vectorizer, end: Operation) -> Value:
        """The sum of experts that compute the same: that, times the sum of their weights."""
        like, first, last = nameless(end), kind[0].number, kind[-1].number
        (chosen,) = vectorizer.record("ge", (self.given.indices, first), like)
        if last < self.kinds[-1][-1].number:
            (below,) = vectorizer.record("le", (self.given.indices, last), like)
            (chosen,) = vectorizer.record("and", (chosen, below), like)
        (weights,) = vectorizer.record("where", (chosen, self.given.weights, 0.0), like)
        (weight,) = vectorizer.record("sum", (weights, -1), like, keepdim=True)
        (product,) = vectorizer.record("mul", (output, weight), like)
        if product.tensor.dtype == output.tensor.dtype:
            return product
        return vectorizer.record("to", (product, output.tensor.dtype), like)[0]


def _is_zeros(begin: Operation | Call | None) -> bool:
    return isinstance(begin, Operation) and canonical_name(begin.name)[0] in ZEROS
