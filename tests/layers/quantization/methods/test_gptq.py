"""`gptq`: the formula by indexing, for both ways of storing zero points, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

F16, F32, F64 = torch.float16, torch.float32, torch.float64
ROWS, COLUMNS, GROUP = 16, 64, 16


def config(bits: int = 4, form: str = "gptq", group: int = GROUP, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "checkpoint_format": form, "sym": False, **more}


def made(c: Any, bits: int = 4, *, less: int = 1, group: int = GROUP, sym: bool = False) -> dict[str, torch.Tensor]:
    """Tensors of a weight, with the codes [K, N] and zero points [K/g, N] that it is made of."""
    codes = torch.randint(0, 1 << bits, (COLUMNS, ROWS))
    zeros = torch.randint(1, 1 << bits, (COLUMNS // group, ROWS))
    zeros = torch.full_like(zeros, 1 << (bits - 1)) if sym else zeros
    return {
        "a.qweight": c.pack(codes.T.tolist(), bits).T.contiguous(),
        "a.qzeros": c.pack((zeros - less).tolist(), bits),
        "a.scales": c.scales(COLUMNS // group, ROWS, dtype=F16),
        "a.g_idx": (torch.arange(COLUMNS) // group).to(torch.int32),
        "a.bias": torch.zeros(ROWS),
        "codes": codes,
        "zeros": zeros,
    }


def stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "." in name}


def formula(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """[N, K]: column by column."""
    weight = torch.empty(ROWS, COLUMNS, dtype=dtype)
    for column, group in enumerate(tensors["a.g_idx"].tolist()):
        shift = tensors["codes"][column] - tensors["zeros"][group]
        weight[:, column] = shift.to(dtype) * tensors["a.scales"][group].to(dtype)
    return weight


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("form", "less"), [("gptq", 1), ("gptq_v2", 0)])
@pytest.mark.parametrize("order", ["plain", "by activation"])
def test_both_formats(checkpoints: Any, bits: int, form: str, less: int, order: str) -> None:
    tensors = made(checkpoints, bits, less=less)
    if order == "by activation":
        tensors["a.g_idx"] = tensors["a.g_idx"][torch.randperm(COLUMNS)]
    source = checkpoints.open(stored(tensors), config(bits, form))
    assert source.names() == ["a.weight", "a.bias"]
    expected = {dtype: formula(tensors, dtype) for dtype in (F32, F64)}
    # the product of a small integer and a float16 is exact in float32: the kernels' product in float16 is this, rounded
    checkpoints.equal(source, "a.weight", {**expected, F16: formula(tensors, F16)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert (weight.permutation is None) == (order == "plain")


def test_symmetric_ones_have_no_zero_points_left(checkpoints: Any) -> None:
    tensors = made(checkpoints, sym=True)
    source = checkpoints.open(stored(tensors), config(sym=True))
    weight = source.quantized("a.weight")
    assert weight is not None
    assert weight.zero_point is None
    assert torch.equal(weight.codes, (tensors["codes"].T - 8).to(torch.int8))
    checkpoints.equal(source, "a.weight", {F32: formula(tensors, F32)})


def test_a_zero_point_of_zero_borrows_from_the_next_in_its_word(checkpoints: Any) -> None:
    """As gptqmodel stores it: 1 is taken from every field of the word at once."""
    tensors = made(checkpoints, less=0)
    tensors["zeros"][:, 2] = 0
    packed = checkpoints.pack(tensors["zeros"].tolist(), 4).to(torch.int64)
    tensors["a.qzeros"] = (packed - 0x11111111).to(torch.int32)
    checkpoints.equal(checkpoints.open(stored(tensors), config()), "a.weight", {F32: formula(tensors, F32)})


def test_one_group_a_row_and_no_order(checkpoints: Any) -> None:
    tensors = made(checkpoints, group=COLUMNS)
    source = checkpoints.open(stored(tensors), config(group=-1))
    checkpoints.equal(source, "a.weight", {F32: formula(tensors, F32)})
    del tensors["a.g_idx"]
    source = checkpoints.open(stored(tensors), {**config(group=COLUMNS), "checkpoint_format": None, "format": "gptq"})
    tensors["a.g_idx"] = torch.zeros(COLUMNS, dtype=torch.int32)
    checkpoints.equal(source, "a.weight", {F32: formula(tensors, F32)})


def test_exceptions_for_modules(checkpoints: Any) -> None:
    """The first that matches counts; one with a minus is not quantized."""
    four, eight = stored(made(checkpoints)), made(checkpoints, 8, group=32)
    tensors = {**four, **{name.replace("a.", "b.x."): tensor for name, tensor in stored(eight).items()}}
    exceptions = {"-:.*c": {}, "+:b": {"bits": 8, "group_size": 32}, ".*x": {"bits": 4}}
    source = checkpoints.open({**tensors, "c.weight": torch.ones(2, 2)}, config(dynamic=exceptions))
    checkpoints.equal(source, "b.x.weight", {F32: formula(eight, F32)})
    assert [(group.bits, group.block) for group in source.summary().groups] == [(4, (1, 16)), (8, (1, 32))]
    wrong = {**tensors, **{name.replace("a.", "c."): tensor for name, tensor in four.items()}}
    assert "`c.qweight` is quantized, though the config leaves" in checkpoints.refusal(
        wrong, config(dynamic=exceptions)
    )


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no scales": ({"a.scales": None}, "`a.scales` is missing beside `a.qweight`"),
    "no zeros": ({"a.qzeros": None}, "`a.qzeros` is missing beside `a.qweight`"),
    "no codes": ({"a.qweight": None}, "`a` has `a.g_idx`, `a.qzeros`, `a.scales`, but no quantized weight"),
    "scales": ({"a.scales": torch.ones(5, 16)}, "`a.scales` has shape (5, 16), expected (4, 16)"),
    "zeros": ({"a.qzeros": torch.zeros(4, 3, dtype=torch.int32)}, "`a.qzeros` has shape (4, 3), expected (4, 2)"),
    "words": ({"a.qweight": torch.zeros(9, 16, dtype=torch.int32)}, "72 columns, which groups of 16 do not divide"),
    "rows": ({"a.qweight": torch.zeros(8, 12, dtype=torch.int32)}, "has 12 rows, expected a multiple of 8"),
    "word": ({"a.qweight": torch.zeros(8, 16)}, "`a.qweight` is float32, expected int32"),
    "axes": ({"a.qweight": torch.zeros(8, dtype=torch.int32)}, "has shape (8,), expected words and rows"),
    "empty": ({"a.qweight": torch.zeros(0, 16, dtype=torch.int32)}, "has shape (0, 16), expected words and rows"),
    "long": ({"a.g_idx": torch.zeros(63, dtype=torch.int32)}, "`a.g_idx` has shape (63,), expected (64,)"),
    "far": ({"a.g_idx": torch.full((64,), 4)}, "`a.g_idx` is out of range: there are 4 groups"),
    "less": ({"a.g_idx": torch.full((64,), -1)}, "`a.g_idx` is out of range: there are 4 groups"),
    "infinite": ({"a.scales": torch.full((4, 16), torch.inf)}, "`a.scales` has infinite values"),
    "negative": ({"a.scales": torch.full((4, 16), -1.0)}, "`a.scales` has negative values"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {**stored(made(checkpoints)), **changes}
    assert message in checkpoints.refusal({k: v for k, v in tensors.items() if v is not None}, config())
