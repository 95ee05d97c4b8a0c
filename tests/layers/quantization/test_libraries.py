"""What the libraries that define the formats make of the same tensors, to the bit; each is skipped where it is absent.

They are no dependencies: `pip install --no-deps --target DIR compressed-tensors gptqmodel autoawq nvidia-modelopt`, and
what they miss alike; then `PYTHONPATH=DIR`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trtllm_port.layers.quantization import QuantizedSource, QuantizedWeight, read_scheme
from trtllm_port.layers.weights import MappingWeights

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
F16, F32, F64, BF16 = torch.float16, torch.float32, torch.float64, torch.bfloat16
PRESETS = (
    "FP8",
    "FP8_DYNAMIC",
    "FP8_BLOCK",
    "W8A8",
    "W4A16",
    "W8A16",
    "W4A16_ASYM",
    "NVFP4",
    "NVFP4A16",
    "MXFP4",
    "MXFP8",
)


def library(name: str) -> ModuleType:
    return pytest.importorskip(name, exc_type=ImportError)


def weight_of(tensors: dict[str, torch.Tensor], config: Any, modelopt: Any = None) -> QuantizedWeight:
    scheme = read_scheme({"quantization_config": config}, modelopt)
    assert scheme is not None
    weight = QuantizedSource(MappingWeights(tensors), scheme).quantized("a.weight")
    assert weight is not None
    return weight


def parameters_of(w: torch.Tensor, arguments: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Scales and zero points as the library has them for a preset."""
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    total = None
    if arguments.strategy in ("group", "tensor_group"):
        low, high = (getattr(w.unflatten(1, (-1, arguments.group_size)), f)(-1) for f in ("amin", "amax"))
        total = generate_gparam(w.amin(), w.amax()) if arguments.strategy == "tensor_group" else None
    elif arguments.strategy == "channel":
        low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    elif arguments.strategy == "block":
        rows, columns = arguments.block_structure
        blocks = w.reshape(w.shape[0] // rows, rows, w.shape[1] // columns, columns)
        low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
    else:
        low, high = w.amin().reshape(1), w.amax().reshape(1)
    scale, zero = calculate_qparams(low, high, arguments, total)
    return scale, zero, total


@pytest.mark.parametrize("preset", PRESETS)
def test_compressed_tensors(preset: str) -> None:
    library("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme

    torch.manual_seed(0)
    w = torch.randn(256, 384) * 0.05
    scheme = preset_name_to_scheme(preset, ["Linear"])
    form = infer_module_format(torch.nn.Linear, scheme).value
    compressor = BaseCompressor.get_value_from_registry(form)
    scale, zero, total = parameters_of(w, scheme.weights)
    state = {"weight": w, "weight_scale": scale.to(F32), "weight_zero_point": zero, "weight_global_scale": total}
    packed = compressor.compress({name: value for name, value in state.items() if value is not None}, scheme)
    tensors = {f"a.{name}": value for name, value in packed.items()}
    if preset == "FP8":
        tensors["a.input_scale"] = torch.ones(1)
    elif preset == "NVFP4":
        tensors["a.input_global_scale"] = torch.ones(1)
    config = QuantizationConfig(config_groups={preset: ["Linear"]}, format=form).to_dict()
    weight = weight_of(tensors, json.loads(json.dumps(config, default=str)))
    expected = compressor.decompress(packed, scheme)["weight"]
    assert torch.equal(weight.dequantize(expected.dtype), expected)
    assert (weight.dequantize() - w).norm() / w.norm() < 0.2  # and it is the weight that was compressed


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("order", ["plain", "by activation"])
def test_gptqmodel(bits: int, form: str, order: str) -> None:
    library("gptqmodel")
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module

    torch.manual_seed(0)
    rows, columns, group = 64, 128, 32
    module = TorchLinear(
        bits=bits, group_size=group, sym=False, desc_act=True, in_features=columns, out_features=rows, bias=False
    )
    linear = torch.nn.Linear(columns, rows, bias=False)
    g_idx = (torch.arange(columns) // group).to(torch.int32)
    if order != "plain":
        g_idx = g_idx[torch.randperm(columns)]
    low, high = linear.weight.amin().item(), linear.weight.amax().item()
    scales = torch.full((rows, columns // group), (high - low) / ((1 << bits) - 1)) * (1 + torch.rand(rows, 4))
    zeros = torch.randint(0, 1 << bits, scales.shape)  # 0 as well: format 1 borrows
    module.pack_block(linear, scales, zeros.to(F32), g_idx)
    expected = None
    for to_v1 in (False, True):
        if to_v1 and form == "gptq":
            convert_gptq_v2_to_v1_format_module(module, type("Config", (), {"bits": bits, "pack_dtype": torch.int32})())
        elif not to_v1:
            module.post_init()
            expected = module.dequantize_weight().T
    tensors = {f"a.{name}": getattr(module, name).clone() for name in ("qweight", "qzeros", "scales", "g_idx")}
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "checkpoint_format": form, "desc_act": True}
    assert expected is not None
    assert torch.equal(weight_of(tensors, config).dequantize(expected.dtype), expected)
    if form == "gptq":
        convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
        assert torch.equal(module.dequantize_weight().T, expected)


def test_autoawq() -> None:
    found = importlib.util.find_spec("awq")
    if found is None or not found.submodule_search_locations:
        pytest.skip("autoawq is absent")
    path = Path(found.submodule_search_locations[0]) / "utils" / "packing_utils.py"
    spec = importlib.util.spec_from_file_location("packing_utils", path)  # the package itself needs much more
    assert spec is not None
    assert spec.loader is not None
    packing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packing)
    torch.manual_seed(0)
    words = (torch.randint(-(2**31), 2**31, shape).to(torch.int32) for shape in ((128, 8), (4, 8)))
    qweight, qzeros = words
    scales = (torch.rand(4, 64) * 0.02 + 0.001).to(F16)
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    weight = weight_of({"a.qweight": qweight, "a.qzeros": qzeros, "a.scales": scales}, config)
    for dtype in (F16, F32):
        expected = packing.dequantize_gemm(qweight, qzeros, scales.to(dtype), 4, 32)
        assert torch.equal(weight.dequantize(dtype), expected.T)


def hf_quant_config(algorithm: str, **more: Any) -> dict[str, Any]:
    fields = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"], **more}
    return {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": fields}


ALGORITHMS = {
    "FP8": ("fp8", ()),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8_pc_pt", (64,)),
    "W8A8_SQ_PER_CHANNEL": ("int8_sq", (64,)),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["nested", "flat"])
def test_modelopt_eight_bits(algorithm: str, form: str) -> None:
    library("modelopt.torch.export.quant_utils")
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.export.quant_utils import from_quantized_weight, to_quantized_weight

    torch.manual_seed(0)
    name, shape = ALGORITHMS[algorithm]
    w = torch.randn(64, 128) * 0.05
    scale = w.abs().amax(-1 if shape else None) / (127 if "int8" in name else 448)
    codes = to_quantized_weight(w, scale, name)
    tensors = {"a.weight": codes, "a.weight_scale": scale, "a.input_scale": torch.tensor(0.1)}
    config = hf_quant_config(algorithm)
    weight = (
        weight_of(tensors, None, config)
        if form == "nested"
        else weight_of(tensors, json.loads(json.dumps(convert_hf_quant_config_format(config))))
    )
    if name != "fp8_pc_pt":  # for which the library has no way back
        assert torch.equal(weight.dequantize(), from_quantized_weight(codes, scale, name, F32))
    assert torch.equal(weight.dequantize(), codes.to(F32) * (scale[:, None] if shape else scale))
    assert (weight.dequantize() - w).norm() / w.norm() < 0.05


def test_modelopt_blocks() -> None:
    library("modelopt.torch.quantization.qtensor")
    from modelopt.torch.quantization.qtensor import FP8QTensor

    torch.manual_seed(0)
    w = torch.randn(256, 384) * 0.05
    sizes = {-1: 128, -2: 128}
    scale = w.reshape(2, 128, 3, 128).abs().amax((1, 3)) / 448
    tensor = FP8QTensor.quantize(w, scale, block_sizes=sizes)[0]
    tensors = {"a.weight": tensor._quantized_data, "a.weight_scale": scale.reshape(2, 1, 3, 1)}
    weight = weight_of(tensors, None, hf_quant_config("fp8_pb_wo"))
    assert torch.equal(weight.dequantize(), tensor.dequantize(dtype=F32, scale=scale, block_sizes=sizes))
    assert (weight.dequantize() - w).norm() / w.norm() < 0.05


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_modelopt_nvfp4(form: str) -> None:
    library("modelopt.torch.quantization.qtensor")
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    torch.manual_seed(0)
    w = torch.randn(64, 128) * 0.05
    tensor, scale, total = NVFP4QTensor.quantize(w, 16)
    tensors = {"a.weight": tensor._quantized_data, "a.weight_scale": scale, "a.weight_scale_2": total}
    tensors["a.input_scale"] = torch.tensor(0.1)
    config = hf_quant_config("NVFP4", group_size=16)
    flat = json.loads(json.dumps(convert_hf_quant_config_format(config)))
    weight = weight_of(tensors, None, config) if form == "nested" else weight_of(tensors, flat)
    expected = tensor.dequantize(dtype=F32, scale=scale, double_scale=total, block_sizes={-1: 16})
    assert torch.equal(weight.dequantize(), expected)
    assert (weight.dequantize() - w).norm() / w.norm() < 0.2


def test_modelopt_int4() -> None:
    library("modelopt.torch.export.quant_utils")
    from modelopt.torch.export.quant_utils import pack_int4_in_uint8

    torch.manual_seed(0)
    w = torch.randn(64, 128) * 0.05
    scale = w.reshape(64, 4, 32).abs().amax(-1) / 7
    tensors = {"a.weight": pack_int4_in_uint8(w, scale, 32), "a.weight_scale": scale}
    weight = weight_of(tensors, None, hf_quant_config("W4A16_AWQ", group_size=32))
    spread = scale.repeat_interleave(32, 1)
    assert torch.equal(weight.dequantize(), (w / spread).round().clamp(-8, 7) * spread)
