"""MLP, GatedMLP and Attention against HF's blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig, NemotronConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRotaryEmbedding
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.nemotron.modeling_nemotron import NemotronMLP

from trtllm_port.layers import MLP, MOE, Attention, GatedMLP, KVCache, Mapping, Tensor, causal_mask

SIZES: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 6, "num_key_value_heads": 2}
X = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in module.named_parameters()}


def test_gated_mlp_is_llamas(evaluate: Any) -> None:
    theirs = LlamaMLP(LlamaConfig(**SIZES, mlp_bias=True))
    found = evaluate.module(GatedMLP(24, 40, "silu", bias=True), weights(theirs), X)
    torch.testing.assert_close(found, theirs(X).detach())


def test_mlp_is_nemotrons(evaluate: Any) -> None:
    theirs = NemotronMLP(NemotronConfig(**SIZES, hidden_act="relu2"))
    found = evaluate.module(MLP(24, 40, "relu2", bias=False), weights(theirs), X)
    torch.testing.assert_close(found, theirs(X).detach())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mixture_of_experts_is_mixtrals(evaluate: Any, dtype: str) -> None:
    config = MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager")
    theirs = MixtralSparseMoeBlock(config).eval()
    generator = torch.Generator().manual_seed(1)  # of other weights, bfloat16 can give two experts one score
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    theirs.to(getattr(torch, dtype))
    x = X.to(getattr(torch, dtype))
    found = evaluate.module(MOE(24, 40, 4, 2), weights(theirs), x, dtype=dtype)
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    torch.testing.assert_close(found, theirs(x).detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_tensorrt_compiles_a_mixture_of_experts(evaluate: Any, compile_engine: Any) -> None:
    module = MOE(24, 40, 4, 2)
    made = {name: torch.zeros(parameter.shape).half() for name, parameter in module.named_parameters()}
    network = evaluate.define(module, (X.half(),), module=module, weights=made, dtype="float16")
    assert compile_engine(network, {"x0": tuple(X.shape)}) == []


def test_attention_is_llamas(evaluate: Any) -> None:
    config = LlamaConfig(**SIZES, attention_bias=True, attn_implementation="eager")
    theirs, positions = LlamaAttention(config, 0), torch.arange(5).expand(2, 5).contiguous()
    cos, sin = LlamaRotaryEmbedding(config)(X, positions)
    ours = Attention(0, 24, 6, 2, 4, bias=True)

    def forward(x: Tensor, p: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cache = KVCache(x.network, p, 8)
        output: Tensor = ours(x, causal_mask(p, cache), cache, (cos, sin))
        cache.mark_outputs()
        return output

    inputs = (X, positions, cos[..., :2].contiguous(), sin[..., :2].contiguous())
    network = evaluate.define(forward, inputs, module=ours, weights=weights(theirs))
    found = run_with_cache(network, inputs)
    mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
    torch.testing.assert_close(found, theirs(X, (cos, sin), mask)[0].detach())


def run_with_cache(network: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    from trtllm_port.runtime.network import NetworkFile
    from trtllm_port.runtime.reference import ReferenceExecutor

    feeds = {f"x{i}": value for i, value in enumerate(inputs)}
    feeds |= {f"past_key_values.0.{part}": torch.zeros(2, 2, 8, 4) for part in ("key", "value")}
    return ReferenceExecutor(NetworkFile.from_network(network), network.weights).run(feeds)["y0"]


def test_blocks_are_cut_over_ranks() -> None:
    mapping = Mapping(tp_size=2)
    shapes = {
        name: (parameter.shape, parameter.full_shape)
        for name, parameter in Attention(0, 24, 6, 2, 4, bias=True, mapping=mapping).named_parameters()
    }
    assert shapes["q_proj.weight"] == ((12, 24), (24, 24))
    assert shapes["k_proj.bias"] == ((4,), (8,))
    assert shapes["o_proj.weight"] == ((24, 12), (24, 24))
    assert shapes["o_proj.bias"] == ((24,), (24,))
