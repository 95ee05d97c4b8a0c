"""Recurrences are told by what functions compute; a port of a state-space model is written from them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MambaConfig

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.record.recorder import Recorder
from trtllm_port.codegen.record.recurrences import hook

B, L, E, N, H, G, K, V = 2, 7, 6, 5, 4, 2, 3, 8


def function(model_type: str, name: str) -> Callable[..., Any]:
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    made: Callable[..., Any] = getattr(module, name)
    return made


def recorded(made: Callable[..., Any], arguments: dict[str, Any]) -> tuple[list[str], Tensor]:
    """What is recorded when a module calls a function, and what the function then returns."""

    class Caller(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = hooked(**{**arguments, first: x})
            return out[0] if isinstance(out, tuple) else out

    model, first = Caller(), next(iter(arguments))
    recorder = Recorder(model)
    recorder.model_inputs["cache"] = Value(torch.zeros(()))
    recorder.states.read = 0, 0
    hooked = hook(made, lambda: recorder)
    with torch.no_grad(), recorder:
        out = model(arguments[first])
    assert recorder.root is not None
    return [item.name for item in recorder.root.body if not isinstance(item, type(recorder.root))], out


def state_space() -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(B, E, L),
        "dt": torch.randn(B, E, L),
        "A": -torch.rand(E, N),
        "B": torch.randn(B, N, L),
        "C": torch.randn(B, N, L),
        "D": torch.randn(E),
        "z": torch.randn(B, E, L),
        "delta_bias": torch.randn(E),
        "delta_softplus": True,
        "return_last_state": True,
    }


def state_space_of_heads() -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(B, L, H, V),
        "dt": torch.randn(B, L, H),
        "A": -torch.rand(H),
        "B": torch.randn(B, L, G, K),
        "C": torch.randn(B, L, G, K),
        "chunk_size": 4,
        "D": torch.randn(H),
        "dt_bias": torch.randn(H),
        "dt_softplus": True,
        "return_final_states": True,
    }


def delta_rule(*, vector: bool, heads: int = H) -> dict[str, Any]:
    return {
        "query": torch.randn(B, L, heads, K),
        "key": torch.randn(B, L, heads, K),
        "value": torch.randn(B, L, H, V),
        "g": -torch.rand(B, L, H, K) if vector else -torch.rand(B, L, H),
        "beta": torch.rand(B, L, H),
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
    }


CASES = {
    "mamba_selective_scan": ("mamba", state_space(), "selective_scan"),
    "mamba2_chunk_scan": ("mamba2", state_space_of_heads(), "linear_attention"),
    "torch_chunk_gated_delta_rule": ("qwen3_next", delta_rule(vector=False), "linear_attention"),
    "torch_chunk_gated_delta_rule, groups": ("qwen3_next", delta_rule(vector=False, heads=G), "linear_attention"),
    "chunk_kimi_delta_attention": ("kimi_linear", delta_rule(vector=True), "linear_attention"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recurrence_is_one_operation_with_its_result(name: str) -> None:
    model_type, arguments, wanted = CASES[name]
    made = function(model_type, name.partition(",")[0])
    try:
        expected = made(**arguments)
    except RuntimeError:
        assert "groups" in name
        pytest.skip("this release repeats the heads of keys before it calls the function")

    names, out = recorded(made, arguments)

    assert names.count(wanted) == 1
    torch.testing.assert_close(out, expected[0], rtol=1e-4, atol=1e-4)


def test_a_function_that_computes_something_else_is_recorded_as_it_is() -> None:
    def scan(
        hidden_states: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return hidden_states * F.softplus(dt), A

    arguments = {key: value for key, value in state_space().items() if key in ("hidden_states", "dt", "A", "B", "C")}

    names, out = recorded(scan, arguments)

    assert names == ["softplus", "mul"]
    torch.testing.assert_close(out, arguments["hidden_states"] * F.softplus(arguments["dt"]))


def test_other_functions_are_left_alone() -> None:
    assert hook(function("mamba", "causal_conv1d_update"), lambda: None) is None
    assert hook(function("mamba2", "segment_sum"), lambda: None) is None


@pytest.mark.slow
def test_a_port_of_a_state_space_model_agrees_with_hugging_face() -> None:
    config = MambaConfig(
        hidden_size=64, state_size=8, num_hidden_layers=3, vocab_size=128, time_step_rank=4, intermediate_size=128
    )
    config.architectures = ["MambaForCausalLM"]

    source = generate_port(config)
    found = check_port(config, source=source)

    assert not source.skeletons
    assert found.problem is None
    assert found.passed
    assert "self.conv1d = CausalConv1d(" in source.files["model.py"]
    assert "selective_scan(" in source.files["model.py"]
