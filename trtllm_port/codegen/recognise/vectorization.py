"""What a record computes for one expert, made anew for several experts at once: with a dimension in front for them.

A tensor of the record is "batched" if it depends on parameters of which it took the expert's own part, by its number.
[T, M] becomes [X, T, M]; what is the same for all experts stays as it is.

X experts, T tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtllm_port.codegen.ir.arguments import is_in_place
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Attribute, Call, Literal, Operation, Value
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.codegen.recognise.constants import stored_tensor
from trtllm_port.codegen.record.experts import combine
from trtllm_port.codegen.rules.base import argument, is_tensor
from trtllm_port.codegen.rules.elementwise import BINARY, FUNCTIONS, IDENTITIES, METHODS
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

BY_ELEMENT = {*BINARY, *METHODS, *FUNCTIONS, *IDENTITIES, *CASTS} - words("matmul bmm") | words(
    "neg negative square gelu clamp clip where maximum minimum leaky_relu hardswish mish elu"
)
RESHAPES = words("view reshape contiguous flatten")
CUTS = words("chunk split tensor_split")


class NotVectorizable(Exception):
    """An operation of which it is not known what it is for several experts at once."""


@dataclass(frozen=True)
class Operand:
    """What stands for a tensor of the record: an argument of operations; experts may be its first dimension."""

    arg: Any
    batched: bool = False


@dataclass(eq=False)
class Vectorizer:
    """Makes operations anew as somebody asks for what they give.

    Attributes:
        model: the model, for its parameters.
        call: the call whose body the operations shall be part of.
        number: of the expert that the record is of.
        count: how many experts there are, from that on.
        makers: value of the record → the operation that made it, or the call of an activation.
        known: tensors of the record → what stands for them.
        made: the operations and calls, in order; more than one `Vectorizer` may add to them.
    """

    model: nn.Module
    call: Call
    number: int
    count: int
    makers: Mapping[Value, Operation | Call]
    known: dict[Any, Operand]
    made: list[Operation | Call]
    parameters: set[Value] = field(default_factory=set)  # made of parameters alone

    def __getitem__(self, arg: Any) -> Operand:
        """What stands for a tensor of the record."""
        if not isinstance(arg, Value):
            return Operand(arg)
        if arg not in self.known:
            self._make(self.makers.get(arg))
        return self.known[arg]

    def tensor(self, arg: Any) -> Any:
        """The content of an argument, or the argument if it is no tensor."""
        if isinstance(arg, Attribute):
            return stored_tensor(self.model, arg.path)
        return arg.tensor if isinstance(arg, Value | Literal) else arg

    def record(self, name: str, args: tuple[Any, ...], like: Operation, **kwargs: Any) -> tuple[Value, ...]:
        """Add an operation; what it gives is called what the record's operation gives is."""
        given = map_structure(self.tensor, (args, kwargs))
        with torch.no_grad(), torch._C.DisableTorchFunction():
            out = _apply(name, *given[0], **given[1])
        tensors = [out] if isinstance(out, Tensor) else list(out)
        outputs = tuple(map(Value, tensors))
        for value, source in zip(outputs, like.outputs, strict=False):
            value.names[self.call] = [label for names in source.names.values() for label in names]
        self.add(Operation(name, args, kwargs, outputs, like.location))
        return outputs

    def add(self, operation: Operation) -> None:
        """Add an operation as it is."""
        self.made.append(operation)
        given = [leaf for leaf in leaves((operation.args, operation.kwargs)) if is_tensor(leaf)]
        if given and all(isinstance(leaf, Attribute) or leaf in self.parameters for leaf in given):
            self.parameters.update(operation.outputs)

    def _make(self, operation: Operation | Call | None) -> None:
        if operation is None:
            raise NotVectorizable("a tensor from elsewhere")
        if isinstance(operation, Call):
            self._activate(operation)
            return
        name, exchanged = canonical_name(operation.name)
        args = operation.args[::-1] if exchanged else operation.args
        if name == "getitem":
            found = self._part(args[0], args[1], operation)
        elif self._is_batched((args, operation.kwargs)):
            found = self._batched(name, args, operation)
        elif is_in_place(operation.name, operation.kwargs) and name not in BY_ELEMENT:
            raise NotVectorizable(operation.name)
        else:
            args, kwargs = map_structure(lambda arg: self[arg].arg, (args, operation.kwargs))
            found = [Operand(value) for value in self.record(name, args, operation, **kwargs)]
        self.known.update(zip(operation.outputs, found, strict=True))

    def _activate(self, call: Call) -> None:
        """The call of an activation with what stands for the tensor that it takes.

        Nothing that Hugging Face's module gives, for the tokens of one expert, compares with what it gives here.
        """
        ((name, own),) = call.args.items()
        given, (result,) = self[own], call.outputs
        with torch.no_grad(), torch._C.DisableTorchFunction():
            output = Value(call.module(self.tensor(given.arg)))
        output.names[self.call] = [label for names in result.names.values() for label in names]
        self.made.append(replace(call, args={name: given.arg}, body=[], outputs=(output,), stands_for_function=True))
        self.known[result] = Operand(output, given.batched)

    def _is_batched(self, tree: Any) -> bool:
        return any(self[leaf].batched for leaf in leaves(tree) if isinstance(leaf, Value))

    def _part(self, source: Any, index: Any, operation: Operation) -> list[Operand]:
        """An expert's part of a parameter is all of it, the tokens that chose the expert are all; any other part."""
        whole = self[source]
        of_parameters = isinstance(whole.arg, Attribute) or whole.arg in self.parameters
        if whole.batched:
            raise NotVectorizable("a part of what experts computed")
        if of_parameters and _is_number(index, self.number):
            return [Operand(self._experts(whole.arg, operation), batched=True)]
        if isinstance(index, Value) and takes_all(index.tensor, len(self.tensor(whole.arg))):
            return [whole]
        index = map_structure(lambda arg: self[arg].arg, index)
        return [Operand(value) for value in self.record("getitem", (whole.arg, index), operation)]

    def _experts(self, parameters: Any, operation: Operation) -> Any:
        """The parameters of those experts that there are, [X, …]."""
        if len(self.tensor(parameters)) == self.count and not self.number:
            return parameters
        start = self.number or None
        return self.record("getitem", (parameters, slice(start, self.number + self.count)), operation)[0]

    def _batched(self, name: str, args: tuple[Any, ...], operation: Operation) -> list[Operand]:
        if name == "linear":
            made = self._linear(args[0], operation)
        elif name in ("matmul", "bmm"):
            made = self.record("matmul", (self[args[0]].arg, self[args[1]].arg), operation)
        elif name in ("T", "t", "mT"):
            made = self.record("transpose", (self[args[0]].arg, 1, 2), operation)
        elif name in CUTS and argument(operation, "dim", 2, 0) < 0:
            made = self.record(name, (self[args[0]].arg, *args[1:]), operation, **operation.kwargs)
        elif name in BY_ELEMENT:
            made = self._by_element(name, args, operation)
        elif name in RESHAPES and operation.outputs[0].tensor.shape == args[0].tensor.shape:
            made = (self[args[0]].arg,)
        else:
            raise NotVectorizable(operation.name)
        return [Operand(value, batched=True) for value in made]

    def _linear(self, given: Any, operation: Operation) -> tuple[Value, ...]:
        weight, bias = argument(operation, "weight", 1), argument(operation, "bias", 2)
        parts = [self[weight], self[bias]]
        if not parts[0].batched or (bias is not None and not parts[1].batched):
            raise NotVectorizable("a linear layer that experts share")
        (turned,) = self.record("transpose", (parts[0].arg, 1, 2), nameless(operation))
        product = self.record("matmul", (self[given].arg, turned), operation)
        if bias is None:
            return product
        (row,) = self.record("unsqueeze", (parts[1].arg, 1), nameless(operation))
        return self.record("add", (product[0], row), operation)

    def _by_element(self, name: str, args: tuple[Any, ...], operation: Operation) -> tuple[Value, ...]:
        """Operands get the dimensions that they lack behind that of the experts, so that those meet."""
        ndim = operation.outputs[0].tensor.ndim
        given = []
        for arg in args:
            made = self[arg]
            for _ in range(ndim - arg.tensor.ndim if made.batched else 0):
                made = Operand(self.record("unsqueeze", (made.arg, 1), nameless(operation))[0], batched=True)
            given.append(made.arg)
        return self.record(name, tuple(given), operation, **operation.kwargs)


def takes_all(index: Tensor, count: int) -> bool:
    """Whether an index takes so many tokens, in order, or all of them several times: an expert was chosen so often."""
    tokens, times = torch.arange(count), index.numel() // count
    return torch.equal(index, tokens.repeat(times)) or torch.equal(index, tokens.repeat_interleave(times))


def _is_number(index: Any, number: int) -> bool:
    """Whether an index is an expert's number, as a Python number or a tensor."""
    if isinstance(index, Value | Literal):
        return index.tensor.ndim == 0 and int(index.tensor) == number
    return type(index) is int and index == number


def nameless(operation: Operation) -> Operation:
    """An operation of the same place that gives nothing."""
    return Operation(operation.name, (), {}, (), operation.location)


def _apply(name: str, *args: Any, **kwargs: Any) -> Any:
    """What an operation of torch gives, by its name: a property, a method, or a function."""
    if name == "getitem":
        return args[0][args[1]]
    if name == "combine_experts":
        return combine(*args)
    if name in ("and", "or"):
        return getattr(args[0], f"__{name}__")(*args[1:])
    for owner in (torch,) if name == "where" else (F, Tensor, torch):  # whose method takes other arguments first
        found = getattr(owner, name, None)
        if callable(found):
            return found(*args, **kwargs)
    return getattr(args[0], name)
