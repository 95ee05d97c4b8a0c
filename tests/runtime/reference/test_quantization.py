"""QUANTIZE and DEQUANTIZE: roundings at the edges, scales per tensor, axis and block; weight-only linear layers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorrt_rtx as trt
import torch
from torch.testing import assert_close

from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.reference import ReferenceExecutor
from trtllm_port.runtime.reference.evaluators import quantization


def test_integers_round_to_even_and_saturate(net: Any) -> None:
    x = torch.tensor([-300.0, -1.5, -0.5, 0.5, 1.5, 2.5, 300.0])
    layer = net.definition.add_quantize(net.input(x), net.constant(torch.tensor(1.0)), trt.int8)
    (result,) = net.run(layer.get_output(0))
    assert result.tolist() == [-128, -2, 0, 0, 2, 2, 127]


@pytest.mark.parametrize("kind", ["fp8", "fp4"])
def test_floats_round_as_their_formats_do(net: Any, kind: str) -> None:
    """Every multiple of 1/64 up to the largest number of the format and a little beyond, against ml_dtypes."""
    limit = {"fp8": 448, "fp4": 6}[kind]
    x = torch.arange(-64 * limit, 64 * limit + 1) / 64
    layer = net.definition.add_quantize(net.input(x), net.constant(torch.tensor(1.0)), getattr(trt, kind))
    back = net.definition.add_dequantize(layer.get_output(0), net.constant(torch.tensor(1.0)), trt.float32)
    (result,) = net.run(back.get_output(0))
    reference = {"fp8": ml_dtypes.float8_e4m3fn, "fp4": ml_dtypes.float4_e2m1fn}[kind]
    assert_close(result, torch.from_numpy(x.numpy().astype(reference).astype(np.float32)))


def test_a_scale_per_index_of_an_axis(net: Any) -> None:
    x, scale = torch.randn(3, 4), torch.tensor([0.1, 0.2, 0.3])
    layer = net.definition.add_quantize(net.input(x), net.constant(scale), trt.int8)
    layer.axis = 0
    (result,) = net.run(layer.get_output(0))
    expected = torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(3), 0, -128, 127)
    assert_close(result * scale[:, None], expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_four_bits_in_blocks(net: Any, dtype: str) -> None:
    """A linear layer whose weight is int4 with one scale per block of 2: dequantized once, at load."""
    weight = torch.randint(-8, 8, (4, 6), dtype=torch.int8)
    packed = (weight[:, 0::2] & 15 | weight[:, 1::2] << 4).contiguous()
    scale = torch.rand(2, 6).to(getattr(torch, dtype))
    x = torch.randn(3, 4).to(getattr(torch, dtype))
    values = trt.Weights(trt.int4, packed.data_ptr(), weight.numel())
    constant = net.definition.add_constant((4, 6), values).get_output(0)
    wide = net.definition.add_dequantize(constant, net.constant(scale), getattr(trt, dtype)).get_output(0)
    kind = trt.MatrixOperation.NONE
    product = net.definition.add_matrix_multiply(net.input(x), kind, wide, kind).get_output(0)
    product.name = "y"
    net.definition.mark_output(product)
    file = NetworkFile.from_definition(net.definition, trt, constants={**net.values, constant.name: weight})
    executor = ReferenceExecutor(file, {}, check=True)
    expected = (weight.float() * scale.float().repeat_interleave(2, 0)).to(x.dtype)
    assert_close(executor.run(net.feeds)["y"], x @ expected)
    assert [step.layer.type for step in executor._steps] == ["MATRIX_MULTIPLY"]


@pytest.mark.parametrize("kind", ["int4", "int8", "float8_e4m3fn", "float4_e2m1fn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blocks", [(1, 1), (6, 1), (6, 4), (3, 2), (1, 4)])
@pytest.mark.parametrize("narrow", [True, False], ids=["scales of the weight's type", "scales in float32"])
def test_a_weight_that_is_dequantized_in_parts_is_rounded_once(
    kind: str, dtype: torch.dtype, blocks: tuple[int, int], narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "AT_ONCE", 40)
    generator = torch.Generator().manual_seed(0)
    shape = (2, 6, 16)
    if kind in ("int4", "float4_e2m1fn"):
        nibbles = torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8)
        codes = nibbles[..., ::2] | nibbles[..., 1::2] << 4
        four = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
        table = np.r_[np.arange(8), np.arange(-8, 0)] if kind == "int4" else np.r_[four, -four]
        values = torch.from_numpy(table[nibbles.numpy()])
    elif kind == "int8":
        codes = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
        values = codes.double()
    else:
        codes = torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)
        values = codes.double()
    scale = torch.rand((2, *blocks), generator=generator).to(dtype if narrow else torch.float32)
    found = quantization.Dequantized(kind, codes, scale, shape, dtype)()
    wide = scale.double().repeat_interleave(6 // blocks[0], 1).repeat_interleave(16 // blocks[1], 2)
    assert torch.equal(found, (values * wide).to(torch.float32).to(dtype))
