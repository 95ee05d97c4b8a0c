"""`compressed-tensors`: formulas by indexing, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

F16, F32, F64, BF16 = torch.float16, torch.float32, torch.float64, torch.bfloat16


def config(form: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {**group, "input_activations": inputs}},
        "ignore": ["lm_head"],
        **more,
    }


TENSOR = {"num_bits": 8, "type": "float", "strategy": "tensor"}
CHANNEL = {"num_bits": 8, "type": "float", "strategy": "channel"}
BLOCK = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [4, 16]}
TOKEN = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
GRIDS = {
    "tensor": (TENSOR, (1,), (12, 40)),
    "channel": (CHANNEL, (12, 1), (1, 40)),
    "rows": (CHANNEL, (12,), (1, 40)),
    "block": (BLOCK, (3, 3), (4, 16)),
    "group": ({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 8}, (12, 5), (1, 8)),
}


@pytest.mark.parametrize("case", GRIDS)
@pytest.mark.parametrize("kind", ["float", "int"])
def test_eight_bits(checkpoints: Any, case: str, kind: str) -> None:
    weights, stored, block = GRIDS[case]
    codes = checkpoints.float8(12, 40) if kind == "float" else torch.randint(-128, 128, (12, 40), dtype=torch.int8)
    scale = checkpoints.scales(*stored, dtype=BF16)
    source = checkpoints.open(
        {"a.weight": codes, "a.weight_scale": scale, "lm_head.weight": torch.ones(2, 2)},
        config(f"{kind}-quantized", {**weights, "type": kind}, TOKEN),
    )
    assert source.names() == ["a.weight", "lm_head.weight"]
    grid = scale.reshape(-(-12 // block[0]), -(-40 // block[1]))
    spread = checkpoints.spread(grid, (12, 40), block)
    product = codes.to(F32) * spread.to(F32)
    checkpoints.equal(source, "a.weight", {F32: product, BF16: product.to(BF16), F64: codes.to(F64) * spread.to(F64)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.activation is not None
    assert (weight.activation.granularity, weight.activation.dynamic, weight.block) == ("token", True, block)
    assert weight.scale.dtype == BF16


def test_zero_points_of_eight_bits(checkpoints: Any) -> None:
    codes = torch.randint(-128, 128, (6, 8), dtype=torch.int8)
    zero, scale = torch.randint(-128, 128, (6, 1), dtype=torch.int8), checkpoints.scales(6, 1)
    tensors = {"a.weight": codes, "a.weight_scale": scale, "a.weight_zero_point": zero}
    source = checkpoints.open(tensors, config("int-quantized", {**CHANNEL, "type": "int", "symmetric": False}))
    checkpoints.equal(source, "a.weight", {F32: (codes.to(F32) - zero.to(F32)) * scale})


def packed(c: Any, bits: int, *, rows: int = 12, columns: int = 48, group: int = 16) -> dict[str, torch.Tensor]:
    """Tensors of a packed weight, with those it is made of under names without a dot."""
    most = 1 << bits
    codes = torch.randint(0, most, (rows, columns))
    zeros = torch.randint(0, most, (rows, columns // group))
    return {
        "a.weight_packed": c.pack(codes.tolist(), bits),
        "a.weight_scale": c.scales(rows, columns // group, dtype=BF16),
        "a.weight_shape": torch.tensor([rows, columns]),
        "a.weight_zero_point": c.pack(zeros.T.tolist(), bits).T.contiguous(),
        "codes": codes - most // 2,
        "zeros": zeros - most // 2,
    }


def stored(tensors: dict[str, torch.Tensor], *without: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "." in name and not name.endswith(without or ("-",))}


def groups(bits: int, size: int = 16, *, symmetric: bool = True) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": size, "symmetric": symmetric}
    return config("pack-quantized", weights)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows", [12, 16])
def test_packed_integers(checkpoints: Any, bits: int, symmetric: bool, rows: int) -> None:
    made = packed(checkpoints, bits, rows=rows)
    tensors = stored(made, *(("zero_point",) if symmetric else ()))
    source = checkpoints.open(tensors, groups(bits, symmetric=symmetric))
    zeros = torch.zeros_like(made["zeros"]) if symmetric else made["zeros"]
    shift = made["codes"] - checkpoints.spread(zeros, (rows, 48), (1, 16))
    scale = checkpoints.spread(made["a.weight_scale"], (rows, 48), (1, 16))
    product = shift.to(F32) * scale.to(F32)
    checkpoints.equal(source, "a.weight", {F32: product, F16: product.to(F16), F64: shift.to(F64) * scale.to(F64)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.kind == f"int{bits}"
    assert torch.equal(weight.codes, made["codes"].to(torch.int8))
    assert (weight.zero_point is None) == symmetric


def test_columns_that_do_not_fill_a_word(checkpoints: Any) -> None:
    codes = torch.randint(0, 16, (3, 13))
    tensors = {
        "a.weight_packed": checkpoints.pack(codes.tolist(), 4),
        "a.weight_scale": checkpoints.scales(3, 1),
        "a.weight_shape": torch.tensor([3, 13]),
    }
    source = checkpoints.open(tensors, config("pack-quantized", {**CHANNEL, "num_bits": 4, "type": "int"}))
    checkpoints.equal(source, "a.weight", {F32: (codes - 8) * tensors["a.weight_scale"]})


def test_columns_in_another_order_than_their_groups(checkpoints: Any) -> None:
    made = packed(checkpoints, 4)
    g_idx = (torch.arange(48) // 16)[torch.randperm(48)].to(torch.int32)
    source = checkpoints.open({**stored(made), "a.weight_g_idx": g_idx}, groups(4, symmetric=False))
    expected = torch.empty(12, 48)
    for column, group in enumerate(g_idx.tolist()):
        shift = made["codes"][:, column] - made["zeros"][:, group]
        expected[:, column] = shift * made["a.weight_scale"][:, group].to(F32)
    checkpoints.equal(source, "a.weight", {F32: expected})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.permutation is not None
    assert torch.equal(g_idx[weight.permutation], g_idx.sort().values)
    for unset in (torch.full((48,), -1, dtype=torch.int32), (torch.arange(48) // 16).to(torch.int32)):
        plain = checkpoints.open({**stored(made), "a.weight_g_idx": unset}, groups(4, symmetric=False))
        assert plain.quantized("a.weight").permutation is None


def test_zero_points_of_older_versions(checkpoints: Any) -> None:
    made = packed(checkpoints, 4)
    newer = checkpoints.open(stored(made), groups(4, symmetric=False))
    older = {**stored(made), "a.weight_zero_point": made["zeros"].to(torch.int8)}
    assert torch.equal(checkpoints.open(older, groups(4, symmetric=False)).tensor("a.weight"), newer.tensor("a.weight"))
    older["a.weight_zero_point"][2, 1] = 8
    assert "`a.weight_zero_point` is out of range: -8 to 7" in checkpoints.refusal(older, groups(4, symmetric=False))


FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}


def nvfp4(c: Any) -> dict[str, torch.Tensor]:
    codes = torch.randint(0, 16, (6, 64), dtype=torch.uint8)
    return {
        "a.weight_packed": c.pack_bytes(codes),
        "a.weight_scale": (torch.rand(6, 4) * 400 + 1).to(torch.float8_e4m3fn),
        "a.weight_global_scale": torch.tensor([713.3]),
        "a.input_global_scale": torch.tensor([301.7]),
        "codes": codes,
    }


def test_nvfp4_divides_by_its_global_scale(checkpoints: Any) -> None:
    made = nvfp4(checkpoints)
    source = checkpoints.open(stored(made), config("nvfp4-pack-quantized", FP4, {**FP4, "dynamic": "local"}))
    expected = {}
    for dtype in (F32, F64):
        scale = made["a.weight_scale"].to(F32).to(dtype) / made["a.weight_global_scale"].to(dtype)
        spread = checkpoints.spread(scale, (6, 64), (1, 16))
        expected[dtype] = checkpoints.e2m1(made["codes"], dtype) * spread
    checkpoints.equal(source, "a.weight", expected)
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.activation is not None
    assert weight.activation.two_level
    assert weight.global_scale == 1 / made["a.weight_global_scale"].to(F64)
    assert torch.equal(weight.activation_scale, 1 / made["a.input_global_scale"])


def test_the_global_scale_as_a_factor_gives_the_same_scales_in_float32(checkpoints: Any) -> None:
    """So whoever multiplies, in float64 and rounded once, loses nothing of the quotient."""
    scale = torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).to(F32)
    for divisor in (torch.rand(2000) * 10.0 ** torch.randint(-6, 6, (2000,))).to(F32):
        assert torch.equal((scale.to(F64) * (1 / divisor.to(F64))).to(F32), scale / divisor)


def test_microscaling(checkpoints: Any) -> None:
    codes, powers = torch.randint(0, 16, (4, 64), dtype=torch.uint8), torch.randint(110, 140, (4, 2), dtype=torch.uint8)
    scale = checkpoints.spread(2.0 ** (powers.to(F32) - 127), (4, 64), (1, 32))
    tensors = {"a.weight_packed": checkpoints.pack_bytes(codes), "a.weight_scale": powers}
    four = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}
    source = checkpoints.open(tensors, config("mxfp4-pack-quantized", four))
    checkpoints.equal(source, "a.weight", {F32: checkpoints.e2m1(codes) * scale})
    eight = checkpoints.float8(4, 64)
    source = checkpoints.open(
        {"a.weight": eight, "a.weight_scale": powers}, config("mxfp8-quantized", {**four, "num_bits": 8})
    )
    checkpoints.equal(source, "a.weight", {F32: eight.to(F32) * scale})


def test_groups_of_several_formats(checkpoints: Any) -> None:
    """The group that names a module counts, then the one whose expression matches, then the class's."""
    mixed = groups(4)
    mixed["format"] = "mixed-precision"
    mixed["config_groups"]["group_0"]["format"] = "pack-quantized"
    mixed["config_groups"]["group_1"] = {"targets": ["re:.*down"], "format": "float-quantized", "weights": CHANNEL}
    mixed["config_groups"]["group_2"] = {"targets": ["x.down"], "format": "float-quantized", "weights": TENSOR}
    tensors = {
        **stored(packed(checkpoints, 4), "zero_point"),
        "down.weight": checkpoints.float8(4, 4),
        "down.weight_scale": checkpoints.scales(4, 1),
        "x.down.weight": checkpoints.float8(4, 4),
        "x.down.weight_scale": checkpoints.scales(1),
    }
    found = checkpoints.open(tensors, mixed).summary()
    assert [(group.granularity, group.kind) for group in found.groups] == [
        ("channel", "fp8_e4m3"),
        ("tensor", "fp8_e4m3"),
        ("group", "int4"),
    ]
    plain = {**tensors, "down.weight": torch.ones(4, 4)}
    del plain["down.weight_scale"]
    assert "`down.weight` is not quantized, though the config names" in checkpoints.refusal(plain, mixed)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no scale": ({"a.weight_scale": None}, "`a.weight_scale` is missing beside `a.weight_packed`"),
    "no shape": ({"a.weight_shape": None}, "`a.weight_shape` is missing"),
    "no zero point": ({"a.weight_zero_point": None}, "`a.weight_zero_point` is missing"),
    "shape": ({"a.weight_scale": torch.ones(12, 4)}, "`a.weight_scale` has shape (12, 4), expected (12, 3)"),
    "dtype": ({"a.weight_scale": torch.ones(12, 3, dtype=torch.int32)}, "`a.weight_scale` is int32, expected"),
    "words": ({"a.weight_packed": torch.zeros(12, 5, dtype=torch.int32)}, "has shape (12, 5), but `a.weight_shape`"),
    "word": ({"a.weight_packed": torch.zeros(12, 6, dtype=torch.int64)}, "is int64, expected int32"),
    "negative shape": ({"a.weight_shape": torch.tensor([-12, 48])}, "but `a.weight_shape` is (-12, 48)"),
    "odd shape": ({"a.weight_shape": torch.tensor([12, 48, 1])}, "has shape (3,), expected (2,)"),
    "zero points": ({"a.weight_zero_point": torch.zeros(1, 3, dtype=torch.int32)}, "expected (2, 3)"),
    "g_idx long": ({"a.weight_g_idx": torch.zeros(47, dtype=torch.int32)}, "has shape (47,), expected (48,)"),
    "g_idx far": ({"a.weight_g_idx": torch.full((48,), 3)}, "`a.weight_g_idx` is out of range: there are 3 groups"),
    "g_idx less": ({"a.weight_g_idx": torch.arange(48) // 16 - 1}, "`a.weight_g_idx` is out of range"),
    "zero": ({"a.weight_scale": torch.zeros(12, 3)}, "`a.weight_scale` has zeros"),
    "both": ({"a.weight": torch.ones(2, 2)}, "`a.weight` is there as well as `a.weight_packed`"),
    "other form": ({"b.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, "it should be `b.weight_packed`"),
    "lm_head": ({"lm_head.weight_packed": torch.ones(2, 2)}, "`lm_head.weight_packed` is quantized, though the config"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {**stored(packed(checkpoints, 4)), **changes}
    found = checkpoints.refusal({k: v for k, v in tensors.items() if v is not None}, groups(4, symmetric=False))
    assert message in found


def test_a_group_size_that_does_not_divide(checkpoints: Any) -> None:
    tensors = stored(packed(checkpoints, 4), "zero_point")
    assert "48 columns, which groups of 20 do not divide" in checkpoints.refusal(tensors, groups(4, 20))


def test_bad_nvfp4(checkpoints: Any) -> None:
    tensors, form = stored(nvfp4(checkpoints)), config("nvfp4-pack-quantized", FP4, {**FP4, "dynamic": "local"})
    for changes, message in (
        ({"a.weight_global_scale": None}, "`a.weight_global_scale` is missing"),
        ({"a.input_global_scale": None}, "`a.input_global_scale` is missing"),
        ({"a.weight_global_scale": torch.zeros(1)}, "`a.weight_global_scale` has zeros"),
        ({"a.weight_global_scale": torch.ones(2)}, "has shape (2,), expected () or (1,) or (1, 1)"),
        ({"a.weight_scale": torch.ones(6, 4)}, "is float32, expected float8_e4m3fn"),
        ({"a.weight_packed": torch.ones(6, 32)}, "is float32, expected uint8"),
        ({"a.weight_packed": torch.ones(6, dtype=torch.uint8)}, "expected rows and columns"),
    ):
        bad = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
        assert message in checkpoints.refusal(bad, form)
