"""`mxfp4`: the formula by indexing, transformers' own dequantization, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
CONFIG = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}
EXPERTS = "model.layers.0.mlp.experts"


def checkpoint(rows: int = 6, columns: int = 64) -> dict[str, torch.Tensor]:
    return {
        f"{EXPERTS}.gate_up_proj_blocks": torch.randint(0, 256, (3, rows, columns // 32, 16), dtype=torch.uint8),
        f"{EXPERTS}.gate_up_proj_scales": torch.randint(1, 240, (3, rows, columns // 32), dtype=torch.uint8),
        f"{EXPERTS}.gate_up_proj_bias": torch.zeros(3, rows),
        "model.layers.0.mlp.router.weight": torch.ones(3, columns),
    }


def test_experts(checkpoints: Any) -> None:
    tensors = checkpoint()
    source = checkpoints.open(tensors, CONFIG)
    name = f"{EXPERTS}.gate_up_proj"
    assert source.names() == [name, f"{name}_bias", "model.layers.0.mlp.router.weight"]
    blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
    expected = torch.empty(3, 64, 6, dtype=F64)
    for expert in range(3):
        for row in range(6):
            for column in range(64):
                byte = int(blocks[expert, row, column // 32, column % 32 // 2])
                code = byte >> 4 if column % 2 else byte & 15
                value = checkpoints.e2m1(torch.tensor([code]), F64)[0]
                expected[expert, column, row] = value * 2.0 ** (int(scales[expert, row, column // 32]) - 127)
    checkpoints.equal(source, name, {F64: expected, F32: expected.to(F32)})
    weight = source.quantized(name)
    assert weight is not None
    assert (weight.codes.shape, weight.scale.dtype, weight.transposed) == ((3, 6, 64), torch.float8_e8m0fnu, True)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_what_transformers_makes_of_it(checkpoints: Any, dtype: torch.dtype) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    tensors, name = checkpoint(), f"{EXPERTS}.gate_up_proj"
    expected = convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype=dtype)
    source = checkpoints.open(tensors, CONFIG, str(dtype).removeprefix("torch."))
    assert torch.equal(source.tensor(name), expected)


def test_one_matrix_of_a_single_expert_is_none_that_is_known(checkpoints: Any) -> None:
    tensors = {"a.weight_blocks": torch.zeros(3, 2, 16, dtype=torch.uint8), **checkpoint()}
    assert "a.weight_blocks" in checkpoints.open(tensors, CONFIG).names()  # no port has such a tensor: it is unexpected


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no scales": ({"gate_up_proj_scales": None}, "gate_up_proj_scales` is missing beside"),
    "no blocks": ({"gate_up_proj_blocks": None}, "gate_up_proj_scales`, but no quantized weight"),
    "scales": (
        {"gate_up_proj_scales": torch.ones(3, 6, 3, dtype=torch.uint8)},
        "has shape (3, 6, 3), expected (3, 6, 2)",
    ),
    "plain scales": ({"gate_up_proj_scales": torch.ones(3, 6, 2)}, "is float32, expected uint8 or float8_e8m0fnu"),
    "bytes": ({"gate_up_proj_blocks": torch.ones(3, 6, 2, 15, dtype=torch.uint8)}, "expected experts, rows, groups"),
    "codes": ({"gate_up_proj_blocks": torch.ones(3, 6, 2, 16, dtype=torch.int8)}, "is int8, expected uint8"),
    "nan": ({"gate_up_proj_scales": torch.full((3, 6, 2), 255, dtype=torch.uint8)}, "has NaN (255)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensors(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {**checkpoint(), **{f"{EXPERTS}.{name}": tensor for name, tensor in changes.items()}}
    assert message in checkpoints.refusal({k: v for k, v in tensors.items() if v is not None}, CONFIG)
