"""`fp8`: the formula by indexing, transformers' own dequantization, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 32]}


def checkpoint(c: Any, rows: int = 40, columns: int = 72, scale: str = "a.weight_scale_inv") -> dict[str, torch.Tensor]:
    return {
        "a.weight": c.float8(rows, columns),
        scale: c.scales(-(-rows // 16), -(-columns // 32)),
        "norm.weight": torch.ones(8),
    }


@pytest.mark.parametrize("scale", ["a.weight_scale_inv", "a.scale", "a.qscale_weight"])
def test_blocks_of_which_the_last_are_smaller(checkpoints: Any, scale: str) -> None:
    tensors = checkpoint(checkpoints, scale=scale)
    source = checkpoints.open(tensors, CONFIG)
    assert source.names() == ["a.weight", "norm.weight"]
    codes, scales = tensors["a.weight"], checkpoints.spread(tensors[scale], (40, 72), (16, 32))
    product = codes.to(F32) * scales
    expected = {F32: product, BF16: product.to(BF16), F64: codes.to(F64) * scales.to(F64)}
    checkpoints.equal(source, "a.weight", expected)
    assert source.tensor("a.weight").dtype == F32


@pytest.mark.parametrize("dtype", [torch.float8_e8m0fnu, torch.uint8])
def test_scales_that_are_powers_of_two(checkpoints: Any, dtype: torch.dtype) -> None:
    exponents = torch.randint(100, 140, (3, 3), dtype=torch.uint8)
    tensors = {**checkpoint(checkpoints), "a.weight_scale_inv": exponents.view(dtype)}
    source = checkpoints.open(tensors, {**CONFIG, "scale_fmt": "ue8m0"})
    scales = checkpoints.spread(2.0 ** (exponents.to(F64) - 127), (40, 72), (16, 32))
    product = tensors["a.weight"].to(F64) * scales
    checkpoints.equal(source, "a.weight", {F32: product.to(F32), F64: product})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert torch.equal(weight.scale.view(torch.uint8), exponents)


def test_one_scale_and_a_stored_one_of_the_input(checkpoints: Any) -> None:
    config = {**CONFIG, "weight_block_size": None, "activation_scheme": "static"}
    codes, scale = checkpoints.float8(8, 8), torch.tensor(0.37)
    tensors = {"a.weight": codes, "a.weight_scale_inv": scale, "a.activation_scale": torch.tensor(0.21)}
    source = checkpoints.open(tensors, config)
    checkpoints.equal(source, "a.weight", {F32: codes.to(F32) * scale, F64: codes.to(F64) * scale.to(F64)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.activation is not None
    assert (weight.activation.dynamic, weight.block) == (False, (8, 8))
    assert torch.equal(weight.activation_scale, torch.tensor(0.21))
    assert "`a.activation_scale` or " in checkpoints.refusal({k: tensors[k] for k in list(tensors)[:2]}, config)


def test_two_e2m1_codes_a_byte(checkpoints: Any) -> None:
    codes = torch.randint(0, 16, (4, 64), dtype=torch.uint8)
    scales = checkpoints.scales(4, 2)
    tensors = {"a.weight": checkpoints.pack_bytes(codes).view(torch.int8), "a.scale": scales}
    source = checkpoints.open(tensors, CONFIG)
    spread = checkpoints.spread(scales, (4, 64), (1, 32))
    expected = {d: checkpoints.e2m1(codes, d) * spread.to(d) for d in (F32, F64)}
    checkpoints.equal(source, "a.weight", expected)
    assert "does not divide (4, 64)" in checkpoints.refusal({**tensors, "a.scale": checkpoints.scales(4, 3)}, CONFIG)
    assert "expected blocks of" in checkpoints.refusal({**tensors, "a.scale": checkpoints.scales(4)}, CONFIG)


def test_stacked_experts(checkpoints: Any) -> None:
    codes, scales = checkpoints.float8(3, 32, 64), checkpoints.scales(3, 2, 2)
    tensors = {"e.gate_up_proj": codes, "e.gate_up_proj_scale_inv": scales, "e.down_proj": torch.ones(3, 2, 2)}
    source = checkpoints.open(tensors, CONFIG)
    assert source.names() == ["e.gate_up_proj", "e.down_proj"]
    spread = checkpoints.spread(scales, (3, 32, 64), (16, 32))
    checkpoints.equal(source, "e.gate_up_proj", {F32: codes.to(F32) * spread})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("powers", [False, True])
def test_what_transformers_makes_of_it(checkpoints: Any, packed: bool, powers: bool) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    codes = checkpoints.float8(32, 64)
    scales = torch.randint(118, 130, (2, 2), dtype=torch.uint8) if powers else checkpoints.scales(2, 2)
    if packed:
        codes = torch.randint(-128, 128, (32, 32), dtype=torch.int8)
    source = checkpoints.open({"a.weight": codes, "a.weight_scale_inv": scales}, CONFIG)
    weight = source.quantized("a.weight")
    assert weight is not None
    for dtype in (F32, BF16):
        expected = Fp8Dequantize(None)._dequantize_one(codes, scales, output_dtype=dtype)
        assert torch.equal(weight.dequantize(dtype), expected)


def test_a_scale_of_an_own_module_is_not_taken_for_one_of_codes(checkpoints: Any) -> None:
    tensors = {**checkpoint(checkpoints), "norm.scale": torch.ones(8)}
    assert checkpoints.open(tensors, CONFIG).names() == ["a.weight", "norm.weight", "norm.scale"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"a.weight_scale_inv": None}, "`a.weight_scale_inv` or `a.scale` or `a.qscale_weight` is missing"),
    "shape": ({"a.weight_scale_inv": torch.ones(2, 3)}, "`a.weight_scale_inv` has shape (2, 3), expected (3, 3)"),
    "dtype": ({"a.weight_scale_inv": torch.ones(3, 3).double()}, "`a.weight_scale_inv` is float64, expected"),
    "zero": ({"a.weight_scale_inv": torch.zeros(3, 3)}, "`a.weight_scale_inv` has zeros"),
    "negative": ({"a.weight_scale_inv": -torch.ones(3, 3)}, "`a.weight_scale_inv` has negative values"),
    "nan": ({"a.weight_scale_inv": torch.full((3, 3), torch.nan)}, "`a.weight_scale_inv` has NaN"),
    "inf": ({"a.weight_scale_inv": torch.full((3, 3), torch.inf)}, "`a.weight_scale_inv` has infinite values"),
    "power": ({"a.weight_scale_inv": torch.full((3, 3), 255, dtype=torch.uint8)}, "has NaN (255)"),
    "codes": ({"a.weight": torch.ones(40, 72).to(torch.float8_e5m2)}, "is float8_e5m2, expected float8_e4m3fn"),
    "one axis": ({"a.weight": torch.ones(40).to(torch.float8_e4m3fn)}, "expected rows and columns"),
    "empty": ({"a.weight": torch.ones(0, 3).to(torch.float8_e4m3fn)}, "expected rows and columns"),
    "plain": ({"a.weight": torch.ones(40, 72)}, "no quantized weight that they belong to"),
    "gone": ({"a.weight": None}, "`a` has `a.weight_scale_inv`, but no quantized weight that they belong to"),
    "other codes": ({"b.bias": torch.ones(4).to(torch.float8_e4m3fn)}, "`b.bias` is float8_e4m3fn, but has no scale"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {**checkpoint(checkpoints), **changes}
    assert message in checkpoints.refusal({k: v for k, v in tensors.items() if v is not None}, CONFIG)


def test_codes_that_are_nan(checkpoints: Any) -> None:
    tensors = checkpoint(checkpoints)
    tensors["a.weight"].view(torch.uint8)[3, 3] = 255
    with pytest.raises(Exception, match=r"`a.weight` has NaN"):
        checkpoints.open(tensors, CONFIG).tensor("a.weight")


def test_a_module_that_the_config_leaves_out_is_quantized(checkpoints: Any) -> None:
    config = {**CONFIG, "modules_to_not_convert": ["a"]}
    assert "`a.weight` is quantized, though the config" in checkpoints.refusal(checkpoint(checkpoints), config)
