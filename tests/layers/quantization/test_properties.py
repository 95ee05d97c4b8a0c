"""Packed and read again, for any shapes and sizes of groups: the codes and zero points come back, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trtllm_port.errors import CheckpointError, PortError
from trtllm_port.layers.quantization import read_scheme

AWQ = [0, 4, 1, 5, 2, 6, 3, 7]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.fixed_dictionaries(
    {
        "bits": st.sampled_from([4, 8]),
        "rows": st.integers(1, 4).map(lambda n: 8 * n),
        "groups": st.integers(1, 4),
        "size": st.sampled_from([8, 16, 24, 32]),
        "shuffled": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)


def draw(size: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [N, K], zero points [N, g], scales [N, g], the group of each column."""
    torch.manual_seed(size["seed"])
    columns, most = size["groups"] * size["size"], 1 << size["bits"]
    g_idx = torch.arange(columns) // size["size"]
    g_idx = g_idx[torch.randperm(columns)] if size["shuffled"] else g_idx
    codes, zeros = (
        torch.randint(0, most, (size["rows"], columns)),
        torch.randint(0, most, (size["rows"], size["groups"])),
    )
    return codes, zeros, torch.rand(size["rows"], size["groups"]) + 0.1, g_idx


def check(source: Any, size: dict[str, Any], g_idx: torch.Tensor) -> None:
    codes, zeros, scales, _ = draw(size)
    weight, middle = source.quantized("a.weight"), 1 << (size["bits"] - 1)
    assert torch.equal(weight.codes, (codes - middle).to(torch.int8))
    found = torch.zeros_like(zeros) if weight.zero_point is None else weight.zero_point
    assert torch.equal(found.to(torch.int64), zeros - middle)
    assert torch.equal(weight.scale, scales)
    assert torch.equal(weight.dequantize(), (codes - zeros[:, g_idx]) * scales[:, g_idx])
    assert source.shape("a.weight") == tuple(codes.shape)


@FEW
@given(SIZES)
def test_gptq(checkpoints: Any, size: dict[str, Any]) -> None:
    codes, zeros, scales, g_idx = draw(size)
    tensors = {
        "a.qweight": checkpoints.pack(codes.tolist(), size["bits"]).T,
        "a.qzeros": checkpoints.pack(zeros.T.tolist(), size["bits"]),
        "a.scales": scales.T,
        "a.g_idx": g_idx.to(torch.int32),
    }
    config = {"quant_method": "gptq", "bits": size["bits"], "group_size": size["size"], "checkpoint_format": "gptq_v2"}
    check(checkpoints.open(tensors, config), size, g_idx)


@FEW
@given(SIZES)
def test_awq(checkpoints: Any, size: dict[str, Any]) -> None:
    size = {**size, "bits": 4, "shuffled": False}
    codes, zeros, scales, g_idx = draw(size)
    tensors = {
        "a.qweight": checkpoints.pack(codes.T.tolist(), 4, AWQ),
        "a.qzeros": checkpoints.pack(zeros.T.tolist(), 4, AWQ),
        "a.scales": scales.T,
    }
    config = {"quant_method": "awq", "bits": 4, "group_size": size["size"], "version": "gemm"}
    check(checkpoints.open(tensors, config), size, g_idx)


@FEW
@given(SIZES, st.integers(-7, 0))
def test_compressed_tensors(checkpoints: Any, size: dict[str, Any], fewer: int) -> None:
    size = {**size, "rows": size["rows"] + fewer}  # zero points are packed along rows, which need not fill a word
    codes, zeros, scales, g_idx = draw(size)
    tensors = {
        "a.weight_packed": checkpoints.pack(codes.tolist(), size["bits"]),
        "a.weight_zero_point": checkpoints.pack(zeros.T.tolist(), size["bits"]).T,
        "a.weight_scale": scales,
        "a.weight_shape": torch.tensor(codes.shape),
        "a.weight_g_idx": g_idx.to(torch.int32),
    }
    weights = {"num_bits": size["bits"], "strategy": "group", "group_size": size["size"], "symmetric": False}
    group = {"targets": ["Linear"], "weights": weights}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    check(checkpoints.open(tensors, config), size, g_idx)


@FEW
@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 9), st.integers(1, 17))
def test_blocks_of_fp8(checkpoints: Any, rows: int, columns: int, high: int, wide: int) -> None:
    codes, scale = checkpoints.float8(rows, columns), checkpoints.scales(-(-rows // high), -(-columns // wide))
    config = {"quant_method": "fp8", "weight_block_size": [high, wide]}
    tensors = {"a.weight": codes, "a.weight_scale_inv": scale}
    if high == 1 and columns % wide:
        assert "do not divide" in checkpoints.refusal(tensors, config)
        return
    found = checkpoints.open(tensors, config).tensor("a.weight")
    for row in range(rows):
        for column in range(0, columns, max(1, columns // 5)):
            assert found[row, column] == codes[row, column].float() * scale[row // high, column // wide]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors", "gptq", "awq", "mxfp4", "modelopt"])
@settings(FEW, max_examples=60)
@given(st.data())
def test_a_strangers_config_is_read_or_refused(checkpoints: Any, method: str, data: st.DataObject) -> None:
    """Whatever its fields hold, one of our errors or a scheme is all that comes of it."""
    keys = [
        *("bits", "group_size", "format", "config_groups", "ignore", "quant_algo", "quantization", "quantized_layers"),
        *("weight_block_size", "modules_to_not_convert", "dynamic", "version", "zero_point", "activation_scheme"),
        *("kv_cache_scheme", "exclude_modules", "fmt", "checkpoint_format", "sparsity_config"),
    ]
    config = data.draw(st.dictionaries(st.sampled_from(keys), ANYTHING, max_size=6))
    groups = {"g": data.draw(st.dictionaries(st.sampled_from(["targets", "weights", "input_activations"]), ANYTHING))}
    if data.draw(st.booleans()):
        config = {**config, "config_groups": groups}
    try:
        found = read_scheme({"quantization_config": {**config, "quant_method": method}})
    except PortError:
        return
    assert found is not None
    found.of("model.layers.0.mlp")


GOOD: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "fp8": (
        {"quant_method": "fp8", "weight_block_size": [4, 8], "activation_scheme": "static"},
        {
            "a.weight": torch.ones(8, 16).to(torch.float8_e4m3fn),
            "a.weight_scale_inv": torch.ones(2, 2),
            "a.activation_scale": torch.ones(()),
        },
    ),
    "fp4": (
        {"quant_method": "fp8"},
        {"a.weight": torch.ones(8, 16, dtype=torch.int8), "a.weight_scale_inv": torch.ones(8, 1)},
    ),
    "packed": (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {
                "g": {
                    "targets": ["Linear"],
                    "weights": {"num_bits": 4, "strategy": "group", "group_size": 8, "symmetric": False},
                    "input_activations": {"num_bits": 8, "strategy": "tensor"},
                }
            },
        },
        {
            "a.weight_packed": torch.ones(8, 2, dtype=torch.int32),
            "a.weight_scale": torch.ones(8, 2),
            "a.weight_zero_point": torch.ones(1, 2, dtype=torch.int32),
            "a.weight_shape": torch.tensor([8, 16]),
            "a.weight_g_idx": torch.arange(16) // 8,
            "a.input_scale": torch.ones(1),
            "a.input_zero_point": torch.ones(1, dtype=torch.int8),
        },
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 8},
        {
            "a.qweight": torch.ones(2, 8, dtype=torch.int32),
            "a.qzeros": torch.ones(2, 1, dtype=torch.int32),
            "a.scales": torch.ones(2, 8),
            "a.g_idx": torch.arange(16) // 8,
        },
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 8},
        {
            "a.qweight": torch.ones(16, 1, dtype=torch.int32),
            "a.qzeros": torch.ones(2, 1, dtype=torch.int32),
            "a.scales": torch.ones(2, 8),
        },
    ),
    "mxfp4": (
        {"quant_method": "mxfp4"},
        {
            "a.down_proj_blocks": torch.ones(2, 4, 1, 16, dtype=torch.uint8),
            "a.down_proj_scales": torch.ones(2, 4, 1, dtype=torch.uint8),
        },
    ),
    "nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        {
            "a.weight": torch.ones(4, 16, dtype=torch.uint8),
            "a.weight_scale": torch.ones(4, 2).to(torch.float8_e4m3fn),
            "a.weight_scale_2": torch.ones(()),
            "a.input_scale": torch.ones(()),
            "a.pre_quant_scale": torch.ones(32),
        },
    ),
    "int4": (
        {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 8},
        {"a.weight": torch.ones(4, 16, dtype=torch.uint8), "a.weight_scale": torch.ones(8, 2)},
    ),
    "blocks": (
        {"quant_method": "modelopt", "quant_algo": "fp8_pb_wo", "group_size": 8},
        {"a.weight": torch.ones(8, 16).to(torch.float8_e4m3fn), "a.weight_scale": torch.ones(1, 1, 2, 1)},
    ),
}
TYPES = [
    *(torch.float32, torch.float16, torch.float64, torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32),
    *(torch.int64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
]
SHAPES = st.sampled_from(
    [(), (0,), (1,), (2,), (16,), (2, 2), (8, 2), (2, 8), (8, 16), (0, 8), (8, 0), (1, 1, 1), (2, 4, 1, 16)]
)


@pytest.mark.parametrize("case", GOOD)
@FEW
@given(st.data())
def test_a_strangers_tensors_are_read_or_refused(checkpoints: Any, case: str, data: st.DataObject) -> None:
    """Whatever types, shapes and values they have, one of our errors or finite weights are all that comes of them."""
    config, good = GOOD[case]
    source = checkpoints.open(good, config)
    source.check_values()
    assert all(source.tensor(name).isfinite().all() for name in source.names())
    tensors = dict(good)
    for name in data.draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2)):
        shape = data.draw(SHAPES | st.just(tuple(good[name].shape)))
        value = data.draw(st.sampled_from([-130, -9, -1, 0, 1, 3, 8, 255, 2**31 - 1]))
        dtype = data.draw(st.sampled_from(TYPES) | st.just(good[name].dtype))
        tensors[name] = torch.full(shape, value, dtype=torch.float64).to(dtype)
    if data.draw(st.booleans()):
        del tensors[data.draw(st.sampled_from(sorted(tensors)))]
    try:
        source = checkpoints.open(tensors, config)
        source.check_values()
        for name in source.names():
            assert tuple(source.tensor(name).shape) == source.shape(name)
    except CheckpointError:
        return
