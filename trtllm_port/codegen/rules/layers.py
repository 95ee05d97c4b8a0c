"""Rules for reductions, products, and the operations that `record/hooks.py` records as one."""

from __future__ import annotations

from typing import Any

from trtllm_port.codegen.ir.dtypes import DTYPES, RMS_EPS
from trtllm_port.codegen.ir.record import Operation
from trtllm_port.codegen.rules.base import Result, RuleTable, argument, dtype_of, node

LAYERS = RuleTable()


@LAYERS.rule("mean", "sum", "amax", "amin")
def _reduce(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1)
    if dim is None or operation.kwargs.get("dtype") not in (None, dtype_of(operation.args[0])):
        return None
    name = {"amax": "max", "amin": "min"}.get(operation.name, operation.name)
    keepdim = {"keepdim": True} if argument(operation, "keepdim", 2, False) else {}
    dims = tuple(dim) if isinstance(dim, tuple | list) else dim
    return node(operation, "method", name, operation.args[0], dims, **keepdim)


@LAYERS.rule("std")
def _std(operation: Operation) -> Result:
    dim = argument(operation, "dim", 1)
    unbiased = argument(operation, "unbiased", 2, operation.kwargs.get("correction", 1) != 0)
    if not isinstance(dim, int | tuple | list) or isinstance(dim, bool) or unbiased:
        return None
    keepdim = {"keepdim": True} if argument(operation, "keepdim", 3, False) else {}
    dims = tuple(dim) if isinstance(dim, tuple | list) else dim
    return node(operation, "function", "std", operation.args[0], dims, **keepdim)


@LAYERS.rule("norm")
def _norm(operation: Operation) -> Result:
    """`torch.norm`, with any positive number for p."""
    p, dim = argument(operation, "p", 1, 2), argument(operation, "dim", 2)
    numbers = isinstance(p, int | float) and 0 < p < float("inf") and isinstance(dim, int)
    if not numbers or operation.kwargs.get("dtype") not in (None, dtype_of(operation.args[0])):
        return None
    keepdim = {"keepdim": True} if argument(operation, "keepdim", 3, False) else {}
    return node(operation, "function", "vector_norm", operation.args[0], p, dim, **keepdim)


@LAYERS.rule("softmax")
def _softmax(operation: Operation) -> Result:
    dtype = argument(operation, "dtype", 3) or operation.kwargs.get("dtype")
    keywords: dict[str, Any] = {"dim": argument(operation, "dim", 1, -1)}
    if dtype is not None and dtype != dtype_of(operation.args[0]):
        keywords["dtype"] = DTYPES[dtype]
    return node(operation, "function", "softmax", operation.args[0], **keywords)


@LAYERS.rule("logsumexp")
def _logsumexp(operation: Operation) -> Result:
    dim, keepdim = argument(operation, "dim", 1), argument(operation, "keepdim", 2, False)
    options = {"keepdim": True} if keepdim else {}
    return node(operation, "function", "logsumexp", operation.args[0], dim, **options)


@LAYERS.rule("cumsum")
def _cumsum(operation: Operation) -> Result:
    return node(operation, "function", "cumsum", operation.args[0], argument(operation, "dim", 1))


@LAYERS.rule("linear")
def _linear(operation: Operation) -> Result:
    bias = argument(operation, "bias", 2)
    weight = argument(operation, "weight", 1)
    return node(operation, "function", "linear", operation.args[0], weight, *([] if bias is None else [bias]))


@LAYERS.rule("embedding")
def _embedding(operation: Operation) -> Result:
    return node(operation, "function", "embedding", operation.args[0], operation.args[1])


@LAYERS.rule("layer_norm")
def _layer_norm(operation: Operation) -> Result:
    names = ("weight", "bias", "eps")
    weight, bias, eps = (
        argument(operation, name, i + 2, 1e-5 if name == "eps" else None) for i, name in enumerate(names)
    )
    if len(argument(operation, "normalized_shape", 1)) != 1:
        return None
    return node(operation, "function", "layer_norm", operation.args[0], weight, bias, eps)


@LAYERS.rule("rms_norm")
def _rms_norm(operation: Operation) -> Result:
    weight, eps = argument(operation, "weight", 2), argument(operation, "eps", 3)
    if len(argument(operation, "normalized_shape", 1)) != 1:
        return None
    return node(operation, "function", "rms_norm", operation.args[0], weight, RMS_EPS if eps is None else eps)


@LAYERS.rule("einsum")
def _einsum(operation: Operation) -> Result:
    return node(operation, "function", "einsum", *operation.args)


@LAYERS.rule("attention")
def _attention(operation: Operation) -> Result:
    keywords = {name: value for name, value in operation.kwargs.items() if value is not None}
    return node(operation, "function", "attention", *operation.args, **keywords)


@LAYERS.rule("mask")
def _mask(operation: Operation) -> Result:
    kind, size = operation.kwargs["kind"], operation.kwargs["size"]
    if kind in ("causal", "window"):
        return node(operation, "function", "causal_mask", *operation.args, window=size)
    return node(operation, "function", "chunked_causal_mask", *operation.args, chunk=size) if kind == "chunk" else None


@LAYERS.rule("alibi_bias")
def _alibi_bias(operation: Operation) -> Result:
    return node(operation, "function", "alibi_bias", *operation.args, **operation.kwargs)


@LAYERS.rule("cache_update")
def _cache_update(operation: Operation) -> Result:
    return node(operation, "cache", "update", *operation.args)


@LAYERS.rule("indexer_update")
def _indexer_update(operation: Operation) -> Result:
    return node(operation, "cache", "update_indexer", *operation.args)


@LAYERS.rule("only_chosen")
def _only_chosen(operation: Operation) -> Result:
    return node(operation, "function", "only_chosen", *operation.args)


@LAYERS.rule("cache_state")
def _cache_state(operation: Operation) -> Result:
    return node(operation, "cache", "state", *operation.args)


@LAYERS.rule("linear_attention", "selective_scan", "linear_recurrence")
def _recurrence(operation: Operation) -> Result:
    return node(operation, "function", operation.name, *operation.args, **operation.kwargs)


@LAYERS.rule("rotary_embedding")
def _rotary(operation: Operation) -> Result:
    keywords = {option: True for option in ("interleaved", "tokens_first") if operation.kwargs.get(option)}
    return node(operation, "function", "rotary_embedding", *operation.args, **keywords)
