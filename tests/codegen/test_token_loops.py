"""A loop over tokens that a module writes out, around a cache of its own, is one operation, and only if it is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from trtllm_port.codegen.ir.record import Call, Operation
from trtllm_port.codegen.recognise.token_loops import fuse_token_loops
from trtllm_port.codegen.record.cache_operations import recorded_cache
from trtllm_port.codegen.record.recorder import Recorder, recording
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import own_class

ROWS, HEADS, TOKENS, SIZE = 2, 3, 5, 4


class Memory(DynamicCache):  # type: ignore[misc]  # transformers is untyped
    """As MiniMax has one."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Tensor] = {}

    def recall(self, layer_idx: int) -> Tensor:
        return self.kept[layer_idx]

    def keep(self, layer_idx: int, state: Tensor) -> None:
        self.kept[layer_idx] = state


class Loop(nn.Module):
    def __init__(self, *, twice: bool = False) -> None:
        super().__init__()
        self.slope = nn.Buffer(torch.linspace(0.1, 0.5, HEADS).view(HEADS, 1, 1))
        self.twice = twice

    def forward(self, query: Tensor, key: Tensor, value: Tensor, cache: Any) -> Tensor:
        state = cache.recall(0)
        decay = torch.exp(-self.slope)
        outputs = []
        for i in range(query.shape[2]):
            new = torch.matmul(key[:, :, i : i + 1].transpose(-1, -2), value[:, :, i : i + 1])
            state = decay * state + (new * 2 if self.twice else new)
            outputs.append(torch.matmul(query[:, :, i : i + 1], state))
        cache.keep(0, state)
        return torch.cat(outputs, dim=-2)


class ModelWithLoop(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention = Loop(**options)
        self.config = SimpleNamespace()

    def forward(self, query: Tensor, key: Tensor, value: Tensor, cache: Any) -> Tensor:
        found: Tensor = self.attention(query, key, value, cache)
        return found


def record(model: nn.Module) -> Call:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(ROWS, HEADS, TOKENS, SIZE, generator=generator) for _ in range(3))
    cache: Any = recorded_cache(model)
    cache.keep(0, torch.randn(ROWS, HEADS, SIZE, SIZE, generator=generator))
    recorder = Recorder(model)
    recorder.model_inputs["cache"] = recorder.value(torch.zeros(()))
    with torch.no_grad(), recording(recorder), recorder:
        model(query, key, value, cache)
    assert recorder.root is not None
    (call,) = (item for item in recorder.root.body if isinstance(item, Call))
    return call


def test_the_cache_is_of_the_model_s_own_class() -> None:
    model = ModelWithLoop()
    assert own_class(model) is Memory
    assert isinstance(recorded_cache(model), Memory)
    assert own_class(nn.Linear(2, 2)) is None


def test_a_loop_is_one_operation() -> None:
    call = record(ModelWithLoop())
    joined = [item for item in fuse_token_loops(call.body) if isinstance(item, Operation)]
    names = [item.name for item in joined]
    assert names.count("linear_attention") == names.count("cache_state") == 1
    assert not {"matmul", "cat", "__getitem__", "state_stored"} & set(names)
    assert joined[-1].outputs == call.outputs
    attention = joined[names.index("linear_attention")]
    assert attention.args[0].tensor.shape == (ROWS, TOKENS, HEADS, SIZE)
    log_decay = attention.kwargs["log_decay"].tensor
    assert torch.allclose(log_decay, -torch.linspace(0.1, 0.5, HEADS).view(1, 1, -1), atol=1e-6)


def test_another_loop_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="follows from no recurrence"):
        fuse_token_loops(record(ModelWithLoop(twice=True)).body)
