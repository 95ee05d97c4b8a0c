"""The canonical form: its rows are dequantized some at a time, to the same values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtllm_port.layers.quantization import QuantizedWeight
from trtllm_port.layers.quantization.layouts import weight as module


def weights(c: Any) -> dict[str, QuantizedWeight]:
    codes = torch.randint(-8, 8, (22, 24), dtype=torch.int8)
    zero = torch.randint(-8, 8, (22, 3), dtype=torch.int8)
    rows: dict[str, Any] = {"kind": "int4", "codes": codes, "block": (1, 8), "scale": c.scales(22, 3)}
    stacked = torch.randint(0, 16, (3, 22, 24), dtype=torch.uint8)
    return {
        "blocks": QuantizedWeight(kind="fp8_e4m3", codes=c.float8(22, 24), block=(4, 16), scale=c.scales(6, 2)),
        "tensor": QuantizedWeight(kind="fp8_e4m3", codes=c.float8(22, 24), block=(22, 24), scale=c.scales(1, 1)),
        "groups": QuantizedWeight(**rows, zero_point=zero, pre_scale=c.scales(24)),
        "order": QuantizedWeight(**rows, zero_point=zero, g_idx=(torch.arange(24) // 8)[torch.randperm(24)]),
        "stacked": QuantizedWeight(
            kind="fp4_e2m1", codes=stacked, block=(1, 8), scale=c.scales(3, 22, 3), transposed=True
        ),
    }


@pytest.mark.parametrize("at_once", [1, 50, 100, 24 * 9])
def test_rows_at_a_time(checkpoints: Any, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    made = weights(checkpoints)
    whole = {name: (weight.dequantize(), weight.parameter(torch.float64)) for name, weight in made.items()}
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    for name, weight in made.items():
        assert torch.equal(weight.dequantize(), whole[name][0]), name
        assert torch.equal(weight.parameter(torch.float64), whole[name][1]), name
    assert made["stacked"].parameter().shape == (3, 24, 22)
    assert made["stacked"].parameter().is_contiguous()


def test_no_more_is_dequantized_at_once_than_is_said(checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one scale is that of all: what is computed in is four to eight times as large as the codes."""
    monkeypatch.setattr(module, "AT_ONCE", 1 << 12)
    made, largest = weights(checkpoints)["tensor"], 0
    large = QuantizedWeight(kind=made.kind, codes=checkpoints.float8(512, 512), block=(512, 512), scale=made.scale)
    original = QuantizedWeight._rows

    def watched(*arguments: Any) -> torch.Tensor:
        nonlocal largest
        values = original(*arguments)
        largest = max(largest, values.numel())
        return values

    monkeypatch.setattr(QuantizedWeight, "_rows", watched)
    large.dequantize(torch.bfloat16)
    assert largest == 1 << 12
