"""`modelopt`: the formulas by indexing, both shapes of its config, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtllm_port.layers.quantization import QuantizedSource, read_scheme
from trtllm_port.layers.weights import MappingWeights

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


def nested(algorithm: str, **more: Any) -> dict[str, Any]:
    """As in `hf_quant_config.json`, and as an inline config may be, too."""
    fields = {"quant_algo": algorithm, "exclude_modules": ["lm_head", "*router*"], "kv_cache_quant_algo": None, **more}
    return {"quant_method": "modelopt", "producer": {"name": "modelopt"}, "quantization": fields}


def flat(algorithm: str, **more: Any) -> dict[str, Any]:
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], "config_groups": {}, **more}


@pytest.mark.parametrize("config", [nested("FP8"), flat("FP8")])
def test_fp8(checkpoints: Any, config: dict[str, Any]) -> None:
    codes, scale = checkpoints.float8(6, 8), torch.tensor(0.0123)
    tensors = {"a.weight": codes, "a.weight_scale": scale, "a.input_scale": torch.tensor(0.3)}
    source = checkpoints.open(tensors, config)
    checkpoints.equal(source, "a.weight", {F32: codes.to(F32) * scale, F64: codes.to(F64) * scale.to(F64)})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert torch.equal(weight.activation_scale, torch.tensor(0.3))
    del tensors["a.input_scale"]
    assert "`a.input_scale` is missing" in checkpoints.refusal(tensors, config)


@pytest.mark.parametrize("algorithm", ["FP8_PER_CHANNEL_PER_TOKEN", "W8A8_SQ_PER_CHANNEL", "W8A16"])
def test_a_scale_a_row(checkpoints: Any, algorithm: str) -> None:
    codes = checkpoints.float8(6, 8) if algorithm[0] == "F" else torch.randint(-128, 128, (6, 8), dtype=torch.int8)
    scale, before = checkpoints.scales(6), checkpoints.scales(8)
    tensors = {
        "a.weight": codes,
        "a.weight_scale": scale,
        "a.input_scale": torch.tensor(0.1),
        "a.pre_quant_scale": before,
    }
    source = checkpoints.open(tensors, nested(algorithm))
    product = codes.to(F32) * scale[:, None]
    checkpoints.equal(source, "a.weight", {F32: product * before})
    weight = source.quantized("a.weight")
    assert weight is not None
    assert torch.equal(weight.dequantize(), product)
    assert weight.pre_scale is not None


@pytest.mark.parametrize("shape", [(2, 1, 2, 1), (2, 2)])
@pytest.mark.parametrize("config", [nested("fp8_pb_wo"), flat("FP8_BLOCK_SCALES")])
def test_blocks(checkpoints: Any, shape: tuple[int, ...], config: dict[str, Any]) -> None:
    codes, scale = checkpoints.float8(200, 256), checkpoints.scales(2, 2)
    source = checkpoints.open({"a.weight": codes, "a.weight_scale": scale.reshape(shape)}, config)
    spread = checkpoints.spread(scale, (200, 256), (128, 128))
    checkpoints.equal(source, "a.weight", {F32: codes.to(F32) * spread})


def nvfp4(c: Any) -> dict[str, torch.Tensor]:
    codes = torch.randint(0, 16, (6, 64), dtype=torch.uint8)
    return {
        "a.weight": c.pack_bytes(codes),
        "a.weight_scale": (torch.rand(6, 4) * 400 + 1).to(torch.float8_e4m3fn),
        "a.weight_scale_2": torch.tensor(0.00012345),
        "a.input_scale": torch.tensor(0.007),
        "codes": codes,
    }


@pytest.mark.parametrize("algorithm", ["NVFP4", "W4A16_NVFP4"])
def test_nvfp4_multiplies_its_scales_first(checkpoints: Any, algorithm: str) -> None:
    tensors = nvfp4(checkpoints)
    codes = tensors.pop("codes")
    source = checkpoints.open(tensors, nested(algorithm, group_size=16))
    expected, other = {}, {}
    for dtype in (F32, F64):
        scale = checkpoints.spread(tensors["a.weight_scale"].to(F32).to(dtype), (6, 64), (1, 16))
        second, values = tensors["a.weight_scale_2"].to(dtype), checkpoints.e2m1(codes, dtype)
        expected[dtype], other[dtype] = values * (scale * second), values * scale * second
    checkpoints.equal(source, "a.weight", expected)
    assert not torch.equal(expected[F32], other[F32])
    weight = source.quantized("a.weight")
    assert weight is not None
    assert (weight.activation is None) == (algorithm != "NVFP4")


def test_int4_pairs_of_rows_and_a_scale_of_the_input(checkpoints: Any) -> None:
    codes = torch.randint(-8, 8, (6, 32))
    data = torch.empty(3, 32, dtype=torch.uint8)
    for pair in range(3):
        data[pair] = (codes[2 * pair] % 16) + 16 * (codes[2 * pair + 1] % 16)
    scale, before = checkpoints.scales(6, 4), checkpoints.scales(32, dtype=BF16)
    tensors = {"a.weight": data, "a.weight_scale": scale, "a.pre_quant_scale": before}
    source = checkpoints.open(tensors, nested("W4A16_AWQ", group_size=8))
    spread = checkpoints.spread(scale, (6, 32), (1, 8))
    expected = {d: codes.to(d) * spread.to(d) * before.to(d) for d in (F32, F64)}
    checkpoints.equal(source, "a.weight", expected)
    weight = source.quantized("a.weight")
    assert weight is not None
    assert torch.equal(weight.codes, codes.to(torch.int8))
    x = torch.rand(5, 32, dtype=F64)
    assert torch.allclose((x * before.to(F64)) @ weight.dequantize(F64).T, x @ weight.parameter(F64).T, rtol=1e-12)


def test_layers_of_several_algorithms(checkpoints: Any) -> None:
    layers = {"a": {"quant_algo": "NVFP4", "group_size": 16}, "b": {"quant_algo": "FP8"}}
    config = nested("MIXED_PRECISION", quantized_layers=layers)
    tensors = {n: t for n, t in nvfp4(checkpoints).items() if "." in n}
    tensors |= {"b.weight": checkpoints.float8(2, 4), "b.weight_scale": torch.ones(1), "b.input_scale": torch.ones(1)}
    found = checkpoints.open(tensors, config).summary()
    assert [(group.kind, group.activation) for group in found.groups] == [
        ("fp8_e4m3", "fp8_e4m3 static per tensor"),
        ("fp4_e2m1", "fp4_e2m1 dynamic per group of 16"),
    ]
    plain = {**tensors, "b.weight": torch.ones(2, 4)}
    del plain["b.weight_scale"], plain["b.input_scale"]
    assert "`b.weight` is not quantized, though the config names" in checkpoints.refusal(plain, config)


def test_a_cache_alone(checkpoints: Any) -> None:
    """Nothing but the KV cache is quantized: its scales are left out, and said to be."""
    tensors = {"l.0.self_attn.k_proj.weight": torch.ones(2, 2), "l.0.self_attn.k_proj.k_scale": torch.ones(1)}
    scheme = read_scheme({}, {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}})
    assert scheme is not None
    source = QuantizedSource(MappingWeights(tensors), scheme)
    assert source.names() == ["l.0.self_attn.k_proj.weight"]
    assert source.left_out == ("l.0.self_attn.k_proj.k_scale",)
    assert source.summary().kv_cache == "fp8"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no scale": ({"a.weight_scale": None}, "`a.weight_scale` is missing beside `a.weight`"),
    "no second": ({"a.weight_scale_2": None}, "`a.weight_scale_2` is missing beside `a.weight`"),
    "no input": ({"a.input_scale": None}, "`a.input_scale` is missing beside `a.weight`"),
    "scale": ({"a.weight_scale": torch.ones(6, 5).to(torch.float8_e4m3fn)}, "has shape (6, 5), expected (6, 4)"),
    "plain scale": ({"a.weight_scale": torch.ones(6, 4)}, "is float32, expected float8_e4m3fn"),
    "nan": ({"a.weight_scale": torch.full((6, 4), torch.nan).to(torch.float8_e4m3fn)}, "`a.weight_scale` has NaN"),
    "negative": ({"a.weight_scale_2": torch.tensor(-1.0)}, "`a.weight_scale_2` has negative values"),
    "bytes": ({"a.weight": torch.ones(6, 30, dtype=torch.uint8)}, "60 columns, which groups of 16 do not divide"),
    "excluded": ({"router.weight": torch.ones(2, 2, dtype=torch.uint8)}, "`router.weight` is quantized, though the"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_nvfp4(checkpoints: Any, case: str) -> None:
    changes, message = BAD[case]
    tensors = {n: t for n, t in {**nvfp4(checkpoints), **changes}.items() if "." in n and t is not None}
    assert message in checkpoints.refusal(tensors, nested("NVFP4"))


def test_bad_int4(checkpoints: Any) -> None:
    good = {"a.weight": torch.ones(3, 32, dtype=torch.uint8), "a.weight_scale": torch.ones(6, 4)}
    for changes, message in (
        ({"a.weight_scale": torch.ones(3, 4)}, "`a.weight_scale` has shape (3, 4), expected (6, 4)"),
        ({"a.weight": torch.ones(3, 32, dtype=torch.int8)}, "`a.weight` is int8, expected uint8"),
        ({"a.weight": torch.ones(3, 30, dtype=torch.uint8)}, "30 columns, which groups of 8 do not divide"),
        ({"a.weight": torch.ones(3, dtype=torch.uint8)}, "expected pairs of rows"),
        ({"a.pre_quant_scale": torch.ones(31)}, "`a.pre_quant_scale` has shape (31,), expected (32,)"),
        ({"a.pre_quant_scale": torch.zeros(32)}, "`a.pre_quant_scale` has zeros"),
    ):
        assert message in checkpoints.refusal({**good, **changes}, nested("W4A16_AWQ", group_size=8))
