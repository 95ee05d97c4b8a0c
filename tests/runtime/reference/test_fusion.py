"""A fused chain gives the bits of its layers one by one, and is fused only where nobody looks inside."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt_rtx as trt
import torch

from trtllm_port.runtime.reference import ReferenceExecutor, fusion

WIDE = ["CAST", "ACTIVATION", "ELEMENTWISE", "CAST"]


def _silu(net: Any, x: torch.Tensor, *, swapped: bool = False, exposed: bool = False) -> ReferenceExecutor:
    narrow = {torch.float16: trt.float16, torch.bfloat16: trt.bfloat16, torch.float32: trt.float32}[x.dtype]
    add = net.definition
    wide = add.add_cast(net.input(x, dynamic=(0,)), trt.float32).get_output(0)
    gate = add.add_activation(wide, trt.ActivationType.SIGMOID).get_output(0)
    gate.name = "gate"
    pair = (gate, wide) if swapped else (wide, gate)
    product = add.add_elementwise(*pair, trt.ElementWiseOperation.PROD).get_output(0)
    outputs = [add.add_cast(product, narrow).get_output(0)]
    return ReferenceExecutor(net.file(*outputs, *([product] if exposed else [])), {})


def _types(executor: ReferenceExecutor) -> list[str]:
    return [step.layer.type for step in executor._steps]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("swapped", [False, True])
def test_every_16_bit_number_comes_out_with_the_same_bits(net: Any, dtype: torch.dtype, swapped: bool) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    executor = _silu(net, numbers, swapped=swapped)
    wide = numbers.float()
    expected = (wide * torch.sigmoid(wide)).to(dtype)
    torch.testing.assert_close(executor.run(net.feeds)["y0"], expected, rtol=0, atol=0, equal_nan=True)
    agrees = fusion.silu_agrees(dtype, torch.device("cpu"))
    assert _types(executor) == (["CAST"] if agrees else WIDE)


def test_it_is_not_fused_where_torch_disagrees(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "silu_agrees", lambda dtype, device: False)
    assert _types(_silu(net, torch.ones(4).bfloat16())) == WIDE


def test_the_comparison_notices_one_different_number(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.nn.functional.silu

    def almost(x: torch.Tensor) -> torch.Tensor:
        y = right(x)
        return torch.where(x == 1.5, torch.nextafter(y, y + 1), y)

    monkeypatch.setattr(fusion.F, "silu", almost)
    assert not fusion.silu_agrees.__wrapped__(torch.bfloat16, torch.device("cpu"))


def test_a_wide_silu_is_left_alone(net: Any) -> None:
    assert "ACTIVATION" in _types(_silu(net, torch.ones(4)))


def test_a_chain_with_an_output_inside_is_left_alone(net: Any) -> None:
    assert _types(_silu(net, torch.ones(4).bfloat16(), exposed=True)) == WIDE


def test_the_inside_can_be_tapped(net: Any) -> None:
    x = torch.randn(8).bfloat16()
    result = _silu(net, x).run(net.feeds, taps=["gate"])
    assert result["gate"].equal(torch.sigmoid(x.float()))
    assert result["y0"].equal((x.float() * result["gate"]).bfloat16())
