"""Layers that keep a state: against torch, in one piece or in several, alone or in a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

from trtllm_port.errors import NetworkError
from trtllm_port.layers import (
    CausalConv1d,
    KVCache,
    Module,
    Network,
    State,
    TokenShift,
    constant,
    linear_attention,
    linear_recurrence,
    selective_scan,
    weighted_average,
)
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.network.kv_cache import allocate_cache
from trtllm_port.runtime.reference import ReferenceExecutor

HEADS, GROUPS, KEY, VALUE, CHANNELS, STATE, KERNEL = 4, 2, 3, 5, 6, 7, 4


class Model:
    """A network of one stateful layer; `inputs` have the tokens in dimension `dim`."""

    def __init__(
        self, layer: Callable[..., Tensor], inputs: Sequence[Tensor], dim: int, module: Module | None = None
    ) -> None:
        weights = {} if module is None else {n: torch.randn(p.shape) for n, p in module.named_parameters()}
        self.weights, self.dim = weights, dim
        network = Network(dtype="float32", max_seq_len=8, weights=weights)
        if module is not None:
            network.bind(module)
        cache = KVCache(network, network.add_input("position_ids", "int64", (-1, -1), ("batch", "length")), 8)
        shapes = [tuple(-1 if axis in (0, dim) else size for axis, size in enumerate(x.shape)) for x in inputs]
        tensors = [network.add_input(f"x{i}", "float32", shape) for i, shape in enumerate(shapes)]
        network.mark_output(layer(*tensors, cache.state(0, "state")), "y")
        cache.mark_outputs()
        self.network = network
        self.executor = ReferenceExecutor(NetworkFile.from_network(network), weights, check=True)

    def new_states(self, batch: int) -> dict[str, Tensor]:
        return allocate_cache(self.executor.inputs, batch)

    def run(self, inputs: Sequence[Tensor], positions: Tensor, states: dict[str, Tensor]) -> Tensor:
        feeds = {f"x{i}": x.contiguous() for i, x in enumerate(inputs)}
        return self.executor.run({"position_ids": positions, **feeds, **states})["y"]


def rows(length: int, batch: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + length).expand(batch, -1).contiguous()


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None) -> Tensor:
    """The recurrence as the paper has it (Yang et al. 2024, eq. 10), token by token."""
    q, k = (x.repeat_interleave(HEADS // GROUPS, 2).double() for x in (q, k))
    v = v.double()
    decay = (g if g.ndim == 4 else g[..., None]).double().exp()
    state, out = torch.zeros(v.shape[0], HEADS, KEY, VALUE, dtype=torch.float64), []
    for t in range(v.shape[1]):
        state = state * decay[:, t, :, :, None]
        new = v[:, t]
        if beta is not None:
            new = beta[:, t, :, None] * (new - torch.einsum("bhk,bhkv->bhv", k[:, t], state))
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], new)
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(out, 1).float()


def attention_inputs(batch: int, length: int, *, vector: bool, delta: bool) -> list[Tensor]:
    shapes = [(GROUPS, KEY), (GROUPS, KEY), (HEADS, VALUE)]
    q, k, v = (torch.randn(batch, length, *shape) for shape in shapes)
    g = -torch.rand(batch, length, HEADS, *([KEY] if vector else []))
    return [q, k, v, g, *([torch.rand(batch, length, HEADS)] if delta else [])]


def attention_layer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *rest: object) -> Tensor:
    beta, state = rest if len(rest) == 2 else (None, *rest)
    return linear_attention(q, k, v, state, log_decay=g, beta=beta)


def scan_layer(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, state: State) -> Tensor:
    return selective_scan(x, dt, constant(A, like=x), b, c, state)


A = -torch.rand(CHANNELS, STATE, generator=torch.Generator().manual_seed(0))
DECAY, BONUS = A[:, 0].clone(), A[:, 1].clone()


def scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
    state, out = torch.zeros(x.shape[0], CHANNELS, STATE), []
    for t in range(x.shape[2]):
        state = state * torch.exp(dt[:, :, t, None] * A) + (dt * x)[:, :, t, None] * b[:, None, :, t]
        out.append((state * c[:, None, :, t]).sum(-1))
    return torch.stack(out, 2)


def convolution(model: Model, x: Tensor) -> Tensor:
    weight, bias = model.weights["weight"], model.weights.get("bias")
    return F.conv1d(F.pad(x, (KERNEL - 1, 0)), weight, bias, groups=CHANNELS)


def scan_inputs(batch: int, length: int) -> list[Tensor]:
    x, b, c = (torch.randn(batch, size, length) for size in (CHANNELS, STATE, STATE))
    return [x, torch.rand(batch, CHANNELS, length), b, c]


def average(k: Tensor, v: Tensor) -> Tensor:
    """RWKV's formula as transformers computes it."""
    decay = torch.log(-DECAY)  # which it takes the exponential of
    found: Tensor = rwkv_linear_attention_cpu(decay, BONUS, k, v)[0]
    return found


def average_layer(k: Tensor, v: Tensor, state: State) -> Tensor:
    return weighted_average(k, v, constant(DECAY, like=k), constant(BONUS, like=k), state)


def running(x: Tensor, decay: Tensor) -> Tensor:
    out = [x[:, 0]]
    for t in range(1, x.shape[1]):
        out.append(out[-1] * decay[:, t] + x[:, t])
    return torch.stack(out, 1)


def shifted(x: Tensor) -> Tensor:
    return torch.nn.ZeroPad2d((0, 0, 1, -1))(x)


TOKENWISE: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], int]] = {  # layer, torch, inputs
    "weighted average": (average_layer, average, 2),
    "running sum": (linear_recurrence, running, 2),
    "shift": (TokenShift().forward, shifted, 1),
}


def case(name: str, batch: int, length: int) -> tuple[Model, list[Tensor], Tensor]:
    """A model, its inputs, and what torch makes of them."""
    if name == "selective_scan":
        inputs = scan_inputs(batch, length)
        return Model(scan_layer, inputs, 2), inputs, scan(*inputs)
    if name == "convolution of tokens, and silu":
        inputs = [torch.randn(batch, length, CHANNELS)]
        module = CausalConv1d(CHANNELS, KERNEL, bias=False, activation="silu", channels_last=True)
        model = Model(module, inputs, 1, module)
        plain = convolution(model, inputs[0].transpose(1, 2))
        return model, inputs, torch.nn.functional.silu(plain).transpose(1, 2)
    if name.startswith("convolution"):
        inputs = [torch.randn(batch, CHANNELS, length)]
        module = CausalConv1d(CHANNELS, KERNEL, bias="bias" in name)
        model = Model(module, inputs, 2, module)
        return model, inputs, convolution(model, *inputs)
    if name in TOKENWISE:
        layer, formula, count = TOKENWISE[name]
        inputs = [torch.randn(batch, length, CHANNELS), torch.rand(batch, length, CHANNELS)][:count]
        return Model(layer, inputs, 1), inputs, formula(*inputs)
    inputs = attention_inputs(batch, length, vector="vector" in name, delta="delta" in name)
    expected = delta_rule(*inputs[:4], inputs[4] if "delta" in name else None)
    return Model(attention_layer, inputs, 1), inputs, expected


CASES = (
    *("selective_scan", "convolution", "convolution with bias", "convolution of tokens, and silu"),
    *("weighted average", "running sum", "shift"),
    *("decay", "vector decay", "delta rule", "delta rule with vector decay"),
)


def part(inputs: Sequence[Tensor], dim: int, start: int, stop: int) -> list[Tensor]:
    return [x.narrow(dim, start, stop - start) for x in inputs]


@pytest.mark.parametrize("name", CASES)
def test_all_tokens_at_once_are_what_torch_computes(name: str) -> None:
    torch.manual_seed(1)
    model, inputs, expected = case(name, 2, 9)

    torch.testing.assert_close(model.run(inputs, rows(9, 2), model.new_states(2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("cuts", [(0, 6, 7, 8, 9), (0, 1, 9), (0, 2, 4, 9)], ids=str)
def test_a_sequence_may_come_in_pieces(name: str, cuts: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    model, inputs, expected = case(name, 2, 9)
    states = model.new_states(2)

    found = [model.run(part(inputs, model.dim, a, b), rows(b - a, 2, a), states) for a, b in pairwise(cuts)]

    torch.testing.assert_close(torch.cat(found, model.dim), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_padding_leaves_no_trace(name: str) -> None:
    torch.manual_seed(3)
    model, inputs, expected = case(name, 3, 9)
    lengths = (5, 1, 3)  # then 4 tokens more for each row, one by one
    longest = max(lengths)
    positions = rows(longest, 3).minimum(torch.tensor(lengths)[:, None] - 1)
    states = model.new_states(3)
    model.run(part(inputs, model.dim, 0, longest), positions, states)

    for step in range(4):
        tokens = [
            torch.cat([x[i : i + 1].narrow(model.dim, n + step, 1) for i, n in enumerate(lengths)]) for x in inputs
        ]
        found = model.run(tokens, torch.tensor(lengths)[:, None] + step, states)
        for row, length in enumerate(lengths):
            wanted = expected[row : row + 1].narrow(model.dim, length + step, 1)
            torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-5, atol=1e-5)


def test_a_state_is_replaced_once() -> None:
    network = Network(dtype="float32", max_seq_len=8, weights={})
    state = KVCache(network, network.add_input("position_ids", "int64", (-1, -1)), 8).state(0, "state")
    past = state.past((3,), "float32")
    state.keep(past)

    with pytest.raises(NetworkError, match="replaced twice"):
        state.keep(past)


def test_indexer_keys_stay_in_their_slots() -> None:
    network = Network(dtype="float32", max_seq_len=6, weights={})
    cache = KVCache(network, network.add_input("position_ids", "int64", (-1, -1), ("batch", "length")), 6)
    keys = network.add_input("keys", "float32", (-1, -1, 4), ("batch", "length"))
    network.mark_output(cache.update_indexer(3, keys), "y")
    cache.mark_outputs()
    executor = ReferenceExecutor(NetworkFile.from_network(network), {}, check=True)
    kept = allocate_cache(executor.inputs, 2)
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {
        "past_key_values.3.indexer_key": (2, 1, 6, 4)
    }
    x = torch.randn(2, 5, 4)
    for start, stop in ((0, 3), (3, 5)):
        feeds = {"position_ids": rows(stop - start, 2, start), "keys": x[:, start:stop].contiguous()}
        found = executor.run({**feeds, **kept})["y"]
    torch.testing.assert_close(found, torch.cat([x, torch.zeros(2, 1, 4)], 1))


def test_a_decay_that_all_tokens_share_is_not_rounded_again_and_again() -> None:
    length = 600
    q, k, v, _ = (x.abs() for x in attention_inputs(1, length, vector=False, delta=False))
    slopes = torch.tensor([1e-5, 1e-3, 0.1, 2.0])

    def layer(q: Tensor, k: Tensor, v: Tensor, state: State) -> Tensor:
        return linear_attention(q, k, v, state, log_decay=constant(-slopes.view(1, 1, -1), like=q))

    model = Model(layer, [q, k, v], 1)
    found = model.run([q, k, v], rows(length, 1), model.new_states(1))
    expected = delta_rule(q, k, v, -slopes.expand(1, length, HEADS), None)
    assert float((found - expected).norm() / expected.norm()) < 1e-7
