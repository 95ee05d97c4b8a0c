"""`awq`: the formula by indexing, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

F16, F32, F64 = torch.float16, torch.float32, torch.float64
CONFIG = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "GEMM"}
PLACES = [0, 4, 1, 5, 2, 6, 3, 7]


def made(c: Any, rows: int = 24, columns: int = 48) -> dict[str, torch.Tensor]:
    """Tensors of a weight, with the codes [K, N] and zero points [K/g, N] that it is made of."""
    codes, zeros = torch.randint(0, 16, (columns, rows)), torch.randint(0, 16, (columns // 16, rows))
    return {
        "a.qweight": c.pack(codes.tolist(), 4, PLACES),
        "a.qzeros": c.pack(zeros.tolist(), 4, PLACES),
        "a.scales": c.scales(columns // 16, rows, dtype=F16),
        "codes": codes,
        "zeros": zeros,
    }


def stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "." in name}


def formula(tensors: dict[str, torch.Tensor], zeros: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    groups = torch.arange(tensors["codes"].shape[0]) // 16
    return ((tensors["codes"] - zeros[groups]).to(dtype) * tensors["a.scales"][groups].to(dtype)).T


@pytest.mark.parametrize("names", ["bits", "w_bit"])
def test_with_zero_points(checkpoints: Any, names: str) -> None:
    tensors = made(checkpoints)
    own = {"quant_method": "awq", "w_bit": 4, "q_group_size": 16, "zero_point": True, "version": "gemm"}
    source = checkpoints.open(stored(tensors), CONFIG if names == "bits" else own)
    checkpoints.equal(source, "a.weight", {d: formula(tensors, tensors["zeros"], d) for d in (F16, F32, F64)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert torch.equal(weight.codes, (tensors["codes"].T - 8).to(torch.int8))
    assert weight.codes.is_contiguous()


def test_without_zero_points_they_are_in_the_middle(checkpoints: Any) -> None:
    tensors = made(checkpoints)
    del tensors["a.qzeros"]
    source = checkpoints.open(stored(tensors), {**CONFIG, "zero_point": False})
    middle = torch.full_like(tensors["zeros"], 8)
    checkpoints.equal(source, "a.weight", {F32: formula(tensors, middle, F32)})
    assert "`a.qzeros` is missing" in checkpoints.refusal(stored(tensors), CONFIG)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no scales": ({"a.scales": None}, "`a.scales` is missing beside `a.qweight`"),
    "scales": ({"a.scales": torch.ones(3, 16)}, "`a.scales` has shape (3, 16), expected (3, 24)"),
    "zeros": ({"a.qzeros": torch.zeros(3, 2, dtype=torch.int32)}, "`a.qzeros` has shape (3, 2), expected (3, 3)"),
    "columns": ({"a.qweight": torch.zeros(50, 3, dtype=torch.int32)}, "50 columns, which groups of 16 do not divide"),
    "word": ({"a.qweight": torch.zeros(48, 3, dtype=torch.int16)}, "`a.qweight` is int16, expected int32"),
    "axes": ({"a.qweight": torch.zeros(1, 48, 3, dtype=torch.int32)}, "expected columns and words"),
    "nan": ({"a.scales": torch.full((3, 24), torch.nan)}, "`a.scales` has NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {**stored(made(checkpoints)), **changes}
    assert message in checkpoints.refusal({k: v for k, v in tensors.items() if v is not None}, CONFIG)
