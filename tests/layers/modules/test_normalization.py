"""Norms against torch and HF in every precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from trtllm_port.layers import LayerNorm, RmsNorm

PRECISIONS = ["float32", "float16", "bfloat16"]


def hidden(dtype: str) -> torch.Tensor:
    return (torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1).to(getattr(torch, dtype))


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 1.0, 0.3, generator=torch.Generator().manual_seed(1))
    return {name: value.detach() for name, value in module.named_parameters()}


def compare(evaluate: Any, ours: Any, theirs: torch.nn.Module, dtype: str) -> None:
    x, weights = hidden(dtype), weights_of(theirs.to(getattr(torch, dtype)))
    found = evaluate.module(ours, weights, x, dtype=dtype)
    assert found.dtype == x.dtype
    with torch.no_grad():
        expected = theirs(x)
    difference = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert difference <= torch.finfo(x.dtype).eps  # one unit in the last place of the greatest value


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_rms_norm_is_llamas(evaluate: Any, dtype: str) -> None:
    compare(evaluate, RmsNorm(16, 1e-5), LlamaRMSNorm(16, 1e-5), dtype)


def test_rms_norm_leaves_a_wide_residual_stream_wide(evaluate: Any) -> None:
    theirs = LlamaRMSNorm(16, 1e-5).half()
    x, weights = hidden("float32"), weights_of(theirs)

    found = evaluate.module(RmsNorm(16, 1e-5), weights, x, dtype="float16")

    with torch.no_grad():
        torch.testing.assert_close(found, theirs(x))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_rms_norm_with_an_offset_is_gemmas(evaluate: Any, dtype: str) -> None:
    compare(evaluate, RmsNorm(16, 1e-6, offset=1.0), GemmaRMSNorm(16, 1e-6), dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_layer_norm_is_torchs(evaluate: Any, dtype: str, options: dict[str, bool]) -> None:
    compare(evaluate, LayerNorm(16, 1e-3, **options), torch.nn.LayerNorm(16, 1e-3, **options), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_tensorrt_compiles_layer_norm(evaluate: Any, compile_engine: Any, dtype: str) -> None:
    norm, x = LayerNorm(16), hidden(dtype)
    weights = {"weight": torch.ones(16).to(x.dtype), "bias": torch.zeros(16).to(x.dtype)}
    network = evaluate.define(norm, (x,), module=norm, weights=weights, dtype=dtype)
    assert compile_engine(network, {"x0": tuple(x.shape)}) == []
