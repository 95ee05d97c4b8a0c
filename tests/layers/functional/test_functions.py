"""Every function against torch, in every data type it takes, and through TensorRT's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as nn

from trtllm_port import layers as L
from trtllm_port.layers import functional

FLOATS = ("float32", "float16", "bfloat16")
NUMBERS = (*FLOATS, "int64", "int32")


class Case(NamedTuple):
    ours: Callable[..., Any]
    torchs: Callable[..., Any]
    inputs: tuple[str, ...] = ("x",)
    dtypes: tuple[str, ...] = FLOATS


def values(kind: str, dtype: str) -> torch.Tensor:
    """Inputs by letter: x [2, 3, 4], y [3, 4], p positive, i indices along dim 1, t tokens, k distinct, s square."""
    generator = torch.Generator().manual_seed(sum(map(ord, kind)))
    kind_dtype = getattr(torch, dtype)
    match kind:
        case "i":
            return torch.randint(0, 3, (2, 2, 4), generator=generator)
        case "t":
            return torch.randint(0, 3, (2, 2), generator=generator)
        case "k":
            return (torch.randperm(60, generator=generator).view(2, 30, 1) - 20).to(kind_dtype)
    shape = {"x": (2, 3, 4), "p": (2, 3, 4), "y": (3, 4), "v": (5,), "u": (2, 2, 4)}[kind]
    if not kind_dtype.is_floating_point:
        return torch.randint(1, 9, shape, generator=generator).to(kind_dtype)
    value = torch.randn(shape, generator=generator)
    return ((value.abs() + 0.5) if kind == "p" else value).to(kind_dtype)


def bools(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: function(x > 0, x < 1)


CHOSEN = torch.tensor([[1, 0], [0, 1], [1, 2]])  # of two experts: the last token has one
WEIGHTS = torch.tensor([[0.7, 0.4], [0.25, 0.5], [1.5, 3.0]])


def overflown(x: L.Tensor) -> L.Tensor:
    """x [X, T, E] with infinities for the token that did not choose expert 0."""
    return L.concat([L.concat([x[:1, :2], x[:1, 2:] / 0.0], 1), x[1:]], 0)


def combined(x: torch.Tensor) -> torch.Tensor:
    chosen = zip(CHOSEN.tolist(), WEIGHTS, strict=True)
    pairs = [[(e, w) for e, w in zip(*pair, strict=True) if e < 2] for pair in chosen]
    rows = [sum(x[e, token].float() * w for e, w in pair) for token, pair in enumerate(pairs)]
    return torch.stack([torch.as_tensor(row) for row in rows]).to(x.dtype)


CASES: dict[str, Case] = {
    "abs": Case(L.abs, torch.abs, dtypes=NUMBERS),
    "add": Case(L.add, torch.add, ("x", "y"), NUMBERS),
    "arange": Case(lambda x: L.arange(L.shape(x, 1), like=x, start=1), lambda x: torch.arange(1, x.shape[1])),
    "argmax": Case(lambda x: L.argmax(x, 1), lambda x: x.argmax(1), ("k",), NUMBERS),
    "cast": Case(lambda x: L.cast(x, "int64"), lambda x: x.long()),
    "ceil": Case(L.ceil, torch.ceil),
    "chunk": Case(lambda x: L.chunk(x, 3, -1), lambda x: x.chunk(3, -1), dtypes=NUMBERS),
    "clip": Case(lambda x: L.clip(x, -0.5, 0.5), lambda x: x.clip(-0.5, 0.5)),
    "combine_experts": Case(
        lambda x: L.combine_experts(overflown(x), L.constant(CHOSEN, like=x), L.constant(WEIGHTS, like=x)), combined
    ),
    "concat": Case(lambda x, u: L.concat([x, u], 1), lambda x, u: torch.cat([x, u], 1), ("x", "u"), NUMBERS),
    "constant": Case(lambda x: x + L.constant([1.0, 2.0, 3.0, 4.0], like=x), lambda x: x + torch.arange(1, 5)),
    "cos": Case(L.cos, torch.cos),
    "cumsum": Case(lambda x: L.cumsum(x, 1), lambda x: x.cumsum(1, dtype=x.dtype), dtypes=NUMBERS),
    "div": Case(L.div, torch.div, ("x", "p")),
    "einsum": Case(
        lambda x, y: L.einsum("abc,dc->abd", x, y), lambda x, y: torch.einsum("abc,dc->abd", x, y), ("x", "y")
    ),
    "elu": Case(L.elu, nn.elu),
    "embedding": Case(lambda t, y: L.embedding(t, y), lambda t, y: nn.embedding(t, y), ("t", "y")),
    "eq": Case(L.eq, torch.eq, ("x", "y"), NUMBERS),
    "erf": Case(L.erf, torch.erf),
    "exp": Case(L.exp, torch.exp),
    "expand": Case(
        lambda x: L.expand(L.unsqueeze(x, 1), (-1, 5, -1, -1)),
        lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1),
        dtypes=NUMBERS,
    ),
    "flatten": Case(lambda x: L.flatten(x, 1), lambda x: x.flatten(1), dtypes=NUMBERS),
    "log1p": Case(lambda x: L.log1p(x * 1e-4), lambda x: (x * 1e-4).log1p()),
    "expm1": Case(lambda x: L.expm1(x * 3.0), lambda x: (x * 3).expm1()),
    "floor": Case(L.floor, torch.floor),
    "floordiv": Case(L.floordiv, torch.floor_divide, ("x", "p"), NUMBERS),
    "full": Case(
        lambda x: L.full((L.shape(x, 0), 5), 2.5, like=x), lambda x: torch.full((len(x), 5), 2.5, dtype=x.dtype)
    ),
    "parts_like": Case(
        lambda x: x * L.parts_like(x, (2.0, 0.5), (1, x.shape[-1] - 1)),
        lambda x: torch.cat([x[..., :1] * 2, x[..., 1:] * 0.5], -1),
    ),
    "full_like": Case(lambda x: L.full_like(x, 3), lambda x: torch.full_like(x, 3), dtypes=NUMBERS),
    "gather": Case(lambda x, i: L.gather(x, 1, i), lambda x, i: x.gather(1, i), ("x", "i"), NUMBERS),
    "gather_nd": Case(
        lambda x, t: L.gather_nd(x, L.unsqueeze(t, 2), batch_dims=1),
        lambda x, t: torch.stack([x[b, t[b]] for b in range(2)]),
        ("x", "t"),
        NUMBERS,
    ),
    "gather_tokens": Case(
        L.gather_tokens, lambda x, t: torch.stack([x[b, t[b]] for b in range(2)]), ("x", "t"), NUMBERS
    ),
    "ge": Case(L.ge, torch.ge, ("x", "y"), NUMBERS),
    "gelu": Case(L.gelu, nn.gelu),
    "gelu_tanh": Case(L.gelu_tanh, lambda x: nn.gelu(x, approximate="tanh")),
    "gt": Case(L.gt, torch.gt, ("x", "y"), NUMBERS),
    "index_select": Case(lambda x, t: L.index_select(x, 1, t), lambda x, t: x[:, t], ("x", "t"), NUMBERS),
    "layer_norm": Case(lambda x: L.layer_norm(x, None, None, 1e-5), lambda x: nn.layer_norm(x, (4,))),
    "le": Case(L.le, torch.le, ("x", "y"), NUMBERS),
    "leaky_relu": Case(L.leaky_relu, nn.leaky_relu),
    "linear": Case(L.linear, nn.linear, ("x", "y")),
    "log": Case(L.log, torch.log, ("p",)),
    "lt": Case(L.lt, torch.lt, ("x", "y"), NUMBERS),
    "matmul": Case(lambda x, y: L.matmul(x, y, transb=True), lambda x, y: x @ y.T, ("x", "y")),
    "max": Case(lambda x: L.max(x, (0, 1)), lambda x: x.amax((0, 1)), dtypes=NUMBERS),
    "maximum": Case(L.maximum, torch.maximum, ("x", "y"), NUMBERS),
    "mean": Case(lambda x: L.mean(x, -1, keepdim=True), lambda x: x.mean(-1, keepdim=True)),
    "min": Case(lambda x: L.min(x, 2), lambda x: x.amin(2), dtypes=NUMBERS),
    "minimum": Case(L.minimum, torch.minimum, ("x", "y"), NUMBERS),
    "mul": Case(L.mul, torch.mul, ("x", "y"), NUMBERS),
    "ne": Case(L.ne, torch.ne, ("x", "y"), NUMBERS),
    "neg": Case(L.neg, torch.neg, dtypes=NUMBERS),
    "one_hot": Case(lambda i: L.one_hot(i, 5), lambda i: nn.one_hot(i, 5), ("i",), ("int64",)),
    "op_and": Case(bools(L.op_and), bools(torch.logical_and), dtypes=NUMBERS),
    "op_not": Case(lambda x: L.op_not(x > 0), lambda x: ~(x > 0), dtypes=NUMBERS),
    "log_sigmoid": Case(L.log_sigmoid, nn.logsigmoid),
    "logsumexp": Case(
        lambda x: L.concat([L.logsumexp(100.0 * x, 1, keepdim=True), L.unsqueeze(L.logsumexp(x, 1), 1)], 1),
        lambda x: torch.cat([(100.0 * x).logsumexp(1, keepdim=True), x.logsumexp(1).unsqueeze(1)], 1),
    ),
    "op_or": Case(bools(L.op_or), bools(torch.logical_or), dtypes=NUMBERS),
    "op_xor": Case(bools(L.op_xor), bools(torch.logical_xor), dtypes=NUMBERS),
    "outer": Case(L.outer, torch.outer, ("v", "v")),
    "permute": Case(lambda x: L.permute(x, (2, 0, 1)), lambda x: x.permute(2, 0, 1), dtypes=NUMBERS),
    "pow": Case(lambda p, y: p**y + p**2 + p**0.5, lambda p, y: p**y + p**2 + p**0.5, ("p", "y")),
    "prod": Case(lambda x: L.prod(x, 1), lambda x: x.prod(1, dtype=x.dtype), dtypes=NUMBERS),
    "quick_gelu": Case(L.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x)),
    "reciprocal": Case(L.reciprocal, torch.reciprocal, ("p",)),
    "relu": Case(L.relu, nn.relu),
    "relu_squared": Case(L.relu_squared, lambda x: nn.relu(x).square()),
    "remainder": Case(L.remainder, torch.remainder, ("y", "p"), ("int64", "int32", "float32")),
    "repeat": Case(lambda x: x.repeat(1, 3, 2), lambda x: x.repeat(1, 3, 2), dtypes=NUMBERS),
    "repeat_interleave": Case(
        lambda x: L.repeat_interleave(x, 3, 2), lambda x: x.repeat_interleave(3, 2), dtypes=NUMBERS
    ),
    "rms_norm": Case(lambda x, y: L.rms_norm(x, y[0], 1e-6), lambda x, y: nn.rms_norm(x, (4,), y[0], 1e-6), ("x", "y")),
    "round": Case(L.round, torch.round),
    "rsqrt": Case(L.rsqrt, torch.rsqrt, ("p",)),
    "scatter": Case(
        lambda x, u: L.scatter(x, 1, L.constant([[[0] * 4, [2] * 4]] * 2, like=x, dtype="int64"), u),
        lambda x, u: x.scatter(1, torch.tensor([[[0] * 4, [2] * 4]] * 2), u),
        ("x", "u"),
        NUMBERS,
    ),
    "std": Case(lambda x: L.std(x, -1, keepdim=True), lambda x: x.std(-1, correction=0, keepdim=True)),
    "vector_norm": Case(lambda x: L.vector_norm(x, 1.5, -1, keepdim=True), lambda x: x.norm(1.5, -1, keepdim=True)),
    "select": Case(lambda x: L.select(x, 1, -1), lambda x: x.select(1, -1), dtypes=NUMBERS),
    "shape": Case(L.shape, lambda x: torch.tensor(x.shape)),
    "sigmoid": Case(L.sigmoid, torch.sigmoid),
    "silu": Case(L.silu, nn.silu),
    "sin": Case(L.sin, torch.sin),
    "slice": Case(lambda x: L.slice(x, 1, -2, -1), lambda x: x[:, -2:-1], dtypes=NUMBERS),
    "softmax": Case(lambda x: L.softmax(x, 1, "float32"), lambda x: x.softmax(1, dtype=torch.float32)),
    "softplus": Case(L.softplus, nn.softplus),
    "split": Case(lambda x: L.split(x, (1, 3), -1), lambda x: x.split((1, 3), -1), dtypes=NUMBERS),
    "sqrt": Case(L.sqrt, torch.sqrt, ("p",)),
    "squeeze": Case(lambda x: L.squeeze(x[:, :, :1], 2), lambda x: x[:, :, 0], dtypes=NUMBERS),
    "stack": Case(lambda x: L.stack([x, x], 1), lambda x: torch.stack([x, x], 1), dtypes=NUMBERS),
    "sub": Case(L.sub, torch.sub, ("x", "y"), NUMBERS),
    "sum": Case(lambda x: L.sum(x, 1), lambda x: x.sum(1, dtype=x.dtype), dtypes=NUMBERS),
    "tanh": Case(L.tanh, torch.tanh),
    "topk": Case(lambda k: L.topk(k, 4, 1), lambda k: tuple(k.topk(4, 1)), ("k",), NUMBERS),
    "transpose": Case(lambda x: L.transpose(x, -1, 0), lambda x: x.transpose(-1, 0), dtypes=NUMBERS),
    "unbind": Case(lambda x: L.stack(L.unbind(x, -1)[::-1]), lambda x: torch.stack(x.unbind(-1)[::-1]), dtypes=NUMBERS),
    "unsqueeze": Case(lambda x: L.unsqueeze(x, -1), lambda x: x.unsqueeze(-1), dtypes=NUMBERS),
    "view": Case(lambda x: L.view(x, (0, L.shape(x, 1), 2, -1)), lambda x: x.view(2, 3, 2, 2), dtypes=NUMBERS),
    "where": Case(lambda x, y: L.where(x > y, x, y), lambda x, y: torch.where(x > y, x, y), ("x", "y"), NUMBERS),
}
ALIASES = {"logical_and", "logical_not", "logical_or", "logical_xor", "reshape"}
ELSEWHERE = {
    *("alibi_bias", "alibi_slopes", "sinusoidal_positions"),
    *("all_gather", "all_reduce", "attention", "causal_mask", "chunked_causal_mask", "needs_decomposition"),
    *("bfloat16", "only_chosen", "slot_distances"),
    *("linear_attention", "linear_recurrence", "rotary_embedding", "scan", "selective_scan", "slice_index"),
    *("rotary_cosines", "rotary_sines"),
    "weighted_average",
}
PARAMETERS = [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes]


def test_every_function_has_a_case() -> None:
    assert set(functional.__all__) == CASES.keys() | ALIASES | ELSEWHERE


@pytest.mark.parametrize(("name", "dtype"), PARAMETERS)
def test_value_is_torchs(name: str, dtype: str, evaluate: Any) -> None:
    case = CASES[name]
    inputs = tuple(values(kind, dtype) for kind in case.inputs)
    found, expected = evaluate(case.ours, *inputs), case.torchs(*inputs)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        if name not in ("constant",):
            assert ours.dtype == theirs.dtype
        tolerance = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}.get(dtype, 0)
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("order", [1.0, 1.15, 2.0])
def test_a_norm_of_one_number_is_that_number(order: float, evaluate: Any) -> None:
    """As it is in torch: what a router's only weight is divided by."""
    x = values("x", "float32")[..., :1]
    found = evaluate(lambda x: x / L.vector_norm(x, order, -1, keepdim=True), x)
    assert torch.equal(found, x / x.norm(order, -1, keepdim=True))
    several = values("x", "float32")
    found = evaluate(lambda x: L.vector_norm(x, order, -1, keepdim=True), several)
    torch.testing.assert_close(found, several.norm(order, -1, keepdim=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("number", [0.1, 1 / 3, 256.5, 257.0, -65537.0, 1e-40])
def test_a_number_is_rounded_as_torch_does(number: float) -> None:
    assert L.bfloat16(number) == torch.tensor(number).bfloat16().item()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NUMBERS)
def test_tensorrt_compiles_every_function(dtype: str, evaluate: Any, compile_engine: Any) -> None:
    """All functions that take the data type, as one network."""
    names = [name for name, found in PARAMETERS if found == dtype]
    letters = sorted({kind for name in names for kind in CASES[name].inputs})
    inputs = tuple(values(kind, dtype) for kind in letters)

    def everything(*tensors: L.Tensor) -> list[L.Tensor]:
        by_letter = dict(zip(letters, tensors, strict=True))
        outputs: list[L.Tensor] = []
        for name in names:
            result = CASES[name].ours(*(by_letter[kind] for kind in CASES[name].inputs))
            outputs += result if isinstance(result, tuple | list) else [result]
        return outputs

    network = evaluate.define(everything, inputs)
    shapes = {f"x{i}": tuple(value.shape) for i, value in enumerate(inputs)}
    assert compile_engine(network, shapes) == []
