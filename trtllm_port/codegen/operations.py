"""torch operations as nodes in the words of `trtllm_port.layers`: one short rule for each.

A rule takes the recorded operation and returns a node, the value that the operation's output equals (it did nothing), or
None (no rule for these arguments).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from trtllm_port.codegen.ir import Form, Node
from trtllm_port.codegen.recorder import Attribute, Literal, Operation, Value

Result = Node | Value | None
Rule = Callable[[Operation], Result]
RULES: dict[str, Rule] = {}

DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.bool: "bool",
}
MODEL_DTYPE = "model dtype"  # the precision of the trace stands for the port's own


def canonical_name(name: str) -> tuple[str, bool]:
    """An operation's plain name, and whether its two operands are exchanged: `__radd__` is `add`, exchanged."""
    if name == "__setitem__":
        return name, False
    plain = name.removeprefix("__").removesuffix("__") if name.startswith("__") else name.removesuffix("_")
    dunder = name.startswith("__")
    if dunder and plain[0] == "r" and plain[1:] in BINARY:
        return plain[1:], True
    if dunder and plain[0] == "i" and plain[1:] in BINARY:
        return plain[1:], False
    return ("sub", True) if plain == "rsub" else (plain, False)


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def translate(operation: Operation) -> Result:
    """The node for an operation; a node of the form "untranslated" if no rule fits."""
    name, exchanged = canonical_name(operation.name)
    if exchanged:
        operation = Operation(name, operation.args[::-1], operation.kwargs, operation.outputs, operation.location)
    found = RULES.get(name)
    result = found(operation) if found is not None else None
    return result if result is not None else node(operation, "untranslated", name, *operation.args, **operation.kwargs)


# helpers


def node(operation: Operation, form: Form, name: str, *args: Any, **keywords: Any) -> Node:
    shaped = next((arg for arg in args if isinstance(arg, Value | Literal)), None)
    shapes = tuple(shaped.tensor.shape) if shaped is not None else ()
    return Node(form, name, args, keywords, operation.outputs, operation.location, shapes)


def argument(operation: Operation, name: str, position: int, default: Any = None) -> Any:
    """An argument given by name or by position."""
    if name in operation.kwargs:
        return operation.kwargs[name]
    return operation.args[position] if len(operation.args) > position else default


def numbers(operation: Operation, start: int = 1) -> tuple[Any, ...]:
    """The integers of `view(2, 3)` and of `view((2, 3))`."""
    rest = operation.args[start:]
    if len(rest) == 1 and isinstance(rest[0], tuple | list):
        return tuple(rest[0])
    return tuple(rest)


def is_tensor(arg: Any) -> bool:
    return isinstance(arg, Value | Attribute | Literal)


def unchanged(operation: Operation) -> Value | None:
    """The first argument, if the output has its type, shape and content."""
    source, target = operation.args[0], operation.outputs[0].tensor
    if isinstance(source, Value) and _alike(source.tensor, target):
        return source
    return None


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def dtype_text(dtype: torch.dtype, model_dtype: torch.dtype = torch.bfloat16) -> str:
    return MODEL_DTYPE if dtype == model_dtype else DTYPES[dtype]


# elementwise

BINARY = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "truediv": "/",
    "true_divide": "/",
    "floordiv": "//",
    "floor_divide": "//",
    "matmul": "@",
    "pow": "**",
    "and": "&",
    "or": "|",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "logical_and": "&",
    "logical_or": "|",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "multiply": "*",
    "subtract": "-",
    "bmm": "@",
}


@rule(*BINARY)
def _binary(operation: Operation) -> Result:
    if len(operation.args) != 2 or operation.kwargs.get("alpha", 1) != 1 or operation.kwargs.get("rounding_mode"):
        return None
    left, right = operation.args
    symbol = BINARY[canonical_name(operation.name)[0]]
    if symbol in "+-" and right == 0 and not is_tensor(right):
        return unchanged(operation)
    return node(operation, "operator", symbol, left, right)


@rule("neg", "invert", "bitwise_not", "logical_not")
def _unary_operator(operation: Operation) -> Result:
    return node(operation, "operator", "-" if operation.name in ("neg", "__neg__") else "~", operation.args[0])


_UNARY = {
    **{name: name for name in ("exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "abs", "erf", "sigmoid")},
    **{name: name for name in ("floor", "ceil", "round", "reciprocal", "relu", "silu", "softplus")},
}
METHODS = frozenset("exp sqrt rsqrt sin cos tanh sigmoid abs".split())  # methods of layers.Tensor among these


@rule(*_UNARY, "square")
def _unary(operation: Operation) -> Result:
    name = canonical_name(operation.name)[0]
    if name == "square":
        return node(operation, "operator", "**", operation.args[0], 2)
    if name == "softplus" and (len(operation.args) > 1 or operation.kwargs):
        return None
    return node(operation, "method" if name in METHODS else "function", _UNARY[name], operation.args[0])


@rule("gelu")
def _gelu(operation: Operation) -> Result:
    approximate = argument(operation, "approximate", 1, "none")
    return node(operation, "function", "gelu_tanh" if approximate == "tanh" else "gelu", operation.args[0])


@rule("clamp", "clip")
def _clamp(operation: Operation) -> Result:
    low, high = argument(operation, "min", 1), argument(operation, "max", 2)
    return (
        None if is_tensor(low) or is_tensor(high) else node(operation, "function", "clip", operation.args[0], low, high)
    )


@rule("maximum", "minimum")
def _extremum(operation: Operation) -> Result:
    return node(operation, "function", operation.name, *operation.args)


@rule("where")
def _where(operation: Operation) -> Result:
    return node(operation, "function", "where", *operation.args) if len(operation.args) == 3 else None


@rule("masked_fill")
def _masked_fill(operation: Operation) -> Result:
    value = argument(operation, "value", 2)
    return node(operation, "function", "where", argument(operation, "mask", 1), value, operation.args[0])


# types

_CASTS = {"float": torch.float32, "half": torch.float16, "long": torch.int64, "int": torch.int32, "bool": torch.bool}


@rule("to", "type", "type_as", "float", "half", "bfloat16", "long", "int", "bool")
def _cast(operation: Operation) -> Result:
    source, target = operation.args[0], operation.outputs[0].tensor
    if target.dtype not in DTYPES and target.dtype != torch.bfloat16:
        return None
    if isinstance(source, Value) and source.tensor.dtype == target.dtype:
        return source
    return node(operation, "cast", dtype_text(target.dtype), source)


@rule("contiguous", "clone", "detach", "dropout", "alias", "data", "requires_grad", "cpu", "nan_to_num")
def _same(operation: Operation) -> Result:
    return unchanged(operation)


# shapes


@rule("view", "reshape", "unflatten", "_unsafe_view", "view_as", "reshape_as")
def _view(operation: Operation) -> Result:
    if operation.outputs[0].tensor.shape == _shape(operation.args[0]) and isinstance(operation.args[0], Value):
        return operation.args[0]
    dims = tuple(operation.outputs[0].tensor.shape)
    given = numbers(operation) if operation.name in ("view", "reshape") else ()
    if -1 in given and len(given) == len(dims):
        dims = tuple(-1 if given[i] == -1 else size for i, size in enumerate(dims))
    return node(operation, "method", "view", operation.args[0], dims)


@rule("expand", "expand_as", "broadcast_to")
def _expand(operation: Operation) -> Result:
    if operation.outputs[0].tensor.shape == _shape(operation.args[0]) and isinstance(operation.args[0], Value):
        return operation.args[0]
    return node(operation, "method", "expand", operation.args[0], tuple(operation.outputs[0].tensor.shape))


def _shape(arg: Any) -> torch.Size | None:
    return arg.tensor.shape if isinstance(arg, Value | Literal) else None


@rule("transpose", "swapaxes", "swapdims")
def _transpose(operation: Operation) -> Result:
    first = argument(operation, "dim0", 1)
    return node(operation, "method", "transpose", operation.args[0], first, argument(operation, "dim1", 2))


@rule("t", "T", "mT")
def _matrix_transpose(operation: Operation) -> Result:
    return node(operation, "method", "transpose", operation.args[0], -2, -1)


@rule("permute")
def _permute(operation: Operation) -> Result:
    dims = argument(operation, "dims", 1) if "dims" in operation.kwargs else numbers(operation)
    return node(operation, "method", "permute", operation.args[0], *dims)


@rule("unsqueeze")
def _unsqueeze(operation: Operation) -> Result:
    return node(operation, "method", "unsqueeze", operation.args[0], argument(operation, "dim", 1))


@rule("squeeze")
def _squeeze(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1)
    return node(operation, "method", "squeeze", operation.args[0], dim) if isinstance(dim, int) else None


@rule("flatten")
def _flatten(operation: Operation) -> Result:
    start, end = argument(operation, "start_dim", 1, 0), argument(operation, "end_dim", 2, -1)
    return node(operation, "method", "flatten", operation.args[0], start, end)


@rule("cat", "concat", "concatenate", "stack", "hstack")
def _join(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1, 0)
    name = "stack" if operation.name == "stack" else "concat"
    return None if operation.name == "hstack" else node(operation, "function", name, tuple(operation.args[0]), dim=dim)


@rule("split", "split_with_sizes")
def _split(operation: Operation) -> Result:
    sizes = argument(operation, "split_size_or_sections", 1, operation.kwargs.get("split_size"))
    sizes = tuple(sizes) if isinstance(sizes, tuple | list) else sizes
    return node(operation, "method", "split", operation.args[0], sizes, dim=argument(operation, "dim", 2, 0))


@rule("chunk", "tensor_split")
def _chunk(operation: Operation) -> Result:
    chunks = argument(operation, "chunks", 1)
    return node(operation, "method", "chunk", operation.args[0], chunks, dim=argument(operation, "dim", 2, 0))


@rule("unbind")
def _unbind(operation: Operation) -> Result:
    return None


@rule("repeat_interleave")
def _repeat(operation: Operation) -> Result:
    repeats = argument(operation, "repeats", 1)
    dim = argument(operation, "dim", 2)
    if not isinstance(repeats, int) or dim is None:
        return None
    return node(operation, "function", "repeat_interleave", operation.args[0], repeats, dim=dim)


@rule("getitem")
def _index(operation: Operation) -> Result:
    if isinstance(operation.args[0], Value) and _shape(operation.args[0]) == operation.outputs[0].tensor.shape:
        same = unchanged(operation)
        if same is not None:
            return same
    index = operation.args[1]
    items = index if isinstance(index, tuple) else (index,)
    if any(isinstance(item, list | bool | Literal) for item in items):
        return None
    return node(operation, "index", "", operation.args[0], tuple(items))


# reductions and products


@rule("mean", "sum", "amax", "amin")
def _reduce(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1)
    if dim is None or operation.kwargs.get("dtype") is not None:
        return None
    name = {"amax": "max", "amin": "min"}.get(operation.name, operation.name)
    keepdim = bool(argument(operation, "keepdim", 2, False))
    return node(operation, "method", name, operation.args[0], dim, **({"keepdim": True} if keepdim else {}))


@rule("softmax")
def _softmax(operation: Operation) -> Result:
    dtype = argument(operation, "dtype", 3)
    keywords: dict[str, Any] = {"dim": argument(operation, "dim", 1, -1)}
    if dtype is not None and dtype != _dtype(operation.args[0]):
        keywords["dtype"] = DTYPES.get(dtype)
    return node(operation, "function", "softmax", operation.args[0], **keywords)


def _dtype(arg: Any) -> torch.dtype | None:
    return arg.tensor.dtype if isinstance(arg, Value | Literal) else None


@rule("linear")
def _linear(operation: Operation) -> Result:
    args = [arg for arg in operation.args if arg is not None]
    return node(operation, "function", "linear", *args)


@rule("embedding")
def _embedding(operation: Operation) -> Result:
    return node(operation, "function", "embedding", operation.args[0], operation.args[1])


@rule("layer_norm")
def _layer_norm(operation: Operation) -> Result:
    weight, bias = argument(operation, "weight", 2), argument(operation, "bias", 3)
    shape = argument(operation, "normalized_shape", 1)
    if len(shape) != 1:
        return None
    return node(
        operation, "function", "layer_norm", operation.args[0], weight, bias, argument(operation, "eps", 4, 1e-5)
    )


@rule("einsum")
def _einsum(operation: Operation) -> Result:
    return node(operation, "function", "einsum", *operation.args)


# the operations of `hooks.py`

_ATTENTION_OPTIONS = {"mask", "scale"}


@rule("attention")
def _attention(operation: Operation) -> Result:
    if set(operation.kwargs) - _ATTENTION_OPTIONS:
        return None
    keywords = {name: value for name, value in operation.kwargs.items() if value is not None}
    return node(operation, "function", "attention", *operation.args, **keywords)


@rule("mask")
def _mask(operation: Operation) -> Result:
    position_ids, cache = operation.args
    kind, size = operation.kwargs["kind"], operation.kwargs["size"]
    if kind in ("causal", "window"):
        return node(operation, "function", "causal_mask", position_ids, cache, window=size)
    if kind == "chunk":
        return node(operation, "function", "chunked_causal_mask", position_ids, cache, chunk=size)
    return None


@rule("cache_update", "cache_updat")
def _cache_update(operation: Operation) -> Result:
    return node(operation, "cache", "update", *operation.args)


@rule("rotary_embedding")
def _rotary(operation: Operation) -> Result:
    keywords = {"interleaved": True} if operation.kwargs["interleaved"] else {}
    return node(operation, "function", "rotary_embedding", *operation.args, **keywords)


def is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)
