"""Short convolutions over the text so far, however a model writes them: `CausalConv1d`.

Every channel has a filter of its own of K tokens, and K - 1 zeros stand before the text. Three ways of writing it are
known: torch's convolution padded on both sides, of which the K - 1 results behind the last token are cut off; torch's
convolution of tokens that were padded before; and a class of the model's own that computes the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtllm_port.codegen.ir.def_use import operations, uses
from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.ir.record import Attribute, Call, Location, Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.record import probing
from trtllm_port.huggingface.module_outputs import is_convolution

TOLERANCE = 0.02  # of the trace's bfloat16, relative to the norm
DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}  # of `torch.nn.functional.conv1d`


@dataclass(frozen=True)
class CausalConvolution:
    """One of them.

    Attributes:
        module: whose parameters the filters are.
        path: its full name.
        leaf: the layer that it is.
        given: the tokens.
        results: what it gives, of as many tokens as it was given.
        location: where it is computed.
    """

    module: nn.Module
    path: str
    leaf: Leaf
    given: Value
    results: tuple[Value, ...]
    location: Location | None


@dataclass(frozen=True)
class _Plain:
    """A call of `torch.nn.functional.conv1d`."""

    module: nn.Module
    path: str
    given: Value
    out: Value
    options: dict[str, Any]
    location: Location | None


@dataclass
class Convolutions:
    """Finds those of a record."""

    root: Call
    model: nn.Module
    numbers: dict[int, list[str]] = field(default_factory=dict)  # layer → its convolutions

    def __post_init__(self) -> None:
        self.uses = uses(self.root)
        self.padded = {op.outputs[0]: op for op in operations(self.root) if op.name == "pad"}

    def of_call(self, call: Call) -> CausalConvolution | None:
        """The one that a module is, or None."""
        given = [leaf for leaf in leaves(call.args) if isinstance(leaf, Value)]
        state = [out for out in call.outputs[1:] if out in self.uses]  # which the module itself gives is nobody's
        if len(given) != 1 or not call.outputs or state or probing.convolution(call.module) is None:
            return None
        if not is_convolution(call.module):
            return _of_own_class(call, given[0])
        module: Any = call.module
        if module.padding_mode != "zeros":
            return None
        options = {key: getattr(module, key) for key in DEFAULTS}
        return self._causal(_Plain(module, call.path, given[0], call.outputs[0], options, call.location))

    def of_operation(self, operation: Operation, block: str) -> CausalConvolution | None:
        """The one that an operation of the module `block` computes with parameters of a module inside, or None."""
        if operation.name != "conv1d":
            return None
        given, weight, *rest = operation.args
        options = {**DEFAULTS, **dict(zip(DEFAULTS, rest, strict=False)), **operation.kwargs}
        if not isinstance(weight, Attribute) or not isinstance(given, Value):
            return None
        path, _, name = weight.path.rpartition(".")
        bias = options["bias"]
        inside = path.startswith(f"{block}." if block else "") and path != block
        if not inside or name != "weight" or (isinstance(bias, Attribute) and bias.path != f"{path}.bias"):
            return None
        module = self.model.get_submodule(path)
        return self._causal(_Plain(module, path, given, operation.outputs[0], options, operation.location))

    def number(self, layer: int, path: str) -> int:
        """Which state of its layer a convolution goes on from."""
        known = self.numbers.setdefault(layer, [])
        if path not in known:
            known.append(path)
        return known.index(path)

    def _causal(self, plain: _Plain) -> CausalConvolution | None:
        leaf, options = probing.convolution(plain.module), plain.options
        channels, size = (leaf or Leaf("", (0, 0))).args
        one = _single(options["stride"]) == _single(options["dilation"]) == 1
        has_bias = options["bias"] is not None
        if leaf is None or not one or options["groups"] != channels or has_bias != leaf.keywords["bias"]:
            return None
        given: Value | None
        if _single(options["padding"]) == size - 1:
            given, results = plain.given, self._cut(plain.out, plain.given.tensor.shape[-1])
        elif _single(options["padding"]) == 0:
            given, results = self._before_padding(plain.given, size - 1), (plain.out,)
        else:
            return None
        if given is None or not results:
            return None
        return CausalConvolution(plain.module, plain.path, leaf, given, results, plain.location)

    def _cut(self, out: Value, length: int) -> tuple[Value, ...]:
        """What is left of a result where it is used, if that is each time the first `length` tokens; else nothing."""
        following = self.uses.get(out, [])
        return tuple(use.outputs[0] for use in following) if all(_cuts(use, length) for use in following) else ()

    def _before_padding(self, given: Value, zeros: int) -> Value | None:
        """What was padded with so many zeros before the first token, if that is how a value came to be."""
        pad = self.padded.get(given)
        bound = None if pad is None else inspect.signature(F.pad).bind(*pad.args, **pad.kwargs).arguments
        if not bound or bound.get("mode", "constant") != "constant" or bound.get("value"):
            return None
        source = bound["input"]
        return source if tuple(bound["pad"]) == (zeros, 0) and isinstance(source, Value) else None


def _single(option: Any) -> Any:
    return option[0] if isinstance(option, tuple | list) and len(option) == 1 else option


@torch.no_grad()
def _of_own_class(call: Call, given: Value) -> CausalConvolution | None:
    """The convolution that a class of the model's own computes, with an activation behind it, if there is one."""
    leaf, out = probing.convolution(call.module), call.outputs[0]
    if leaf is None or given.tensor.ndim != 3 or out.tensor.shape != given.tensor.shape:
        return None
    weight: Any = call.module.weight
    bias: Any = call.module.bias if leaf.keywords["bias"] else None
    for channels_last in (True, False):
        x = given.tensor.transpose(1, 2) if channels_last else given.tensor
        if x.shape[1] != leaf.args[0]:
            continue
        wide = F.pad(x.float(), (leaf.args[1] - 1, 0))
        plain = F.conv1d(wide, weight.float(), None if bias is None else bias.float(), groups=leaf.args[0])
        plain = plain.transpose(1, 2) if channels_last else plain
        named: list[tuple[str | None, Callable[[Tensor], Tensor]]] = [(None, lambda x: x), *probing.ACTIVATIONS.items()]
        errors = {name: _error(function(plain), out.tensor) for name, function in named}
        activation = min(errors, key=lambda name: errors[name])  # some of them are nearly alike
        if errors[activation] <= TOLERANCE:
            keywords = {**leaf.keywords, "activation": activation, "channels_last": channels_last}
            leaf = Leaf(leaf.kind, leaf.args, keywords)
            return CausalConvolution(call.module, call.path, leaf, given, (out,), call.location)
    return None


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected.float()).norm() / expected.float().norm())


def _cuts(use: Operation, length: int) -> bool:
    index = use.args[1] if use.name in ("__getitem__", "getitem") else None
    if not isinstance(index, tuple) or not index:
        return False
    *others, last = index
    whole = all(item is Ellipsis or item == slice(None) for item in others)
    return whole and isinstance(last, slice) and last in (slice(None, length), slice(None, length, None))
