"""How the table's checkpoints are packed: by the library that defines the format where it is installed, else plainly.

N rows, K columns; each gives its tensors by what follows the module's name, and the weight that they stand for.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch

from tests.quantized_models import Packed

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
PLAINLY = "plainly"
Packer = Callable[[torch.Tensor], Packed]


def installed(library: str) -> bool:
    """Whether the library of a format is there."""
    return importlib.util.find_spec(library) is not None


def _nearest_e2m1(scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes from 0 to 15, and their values."""
    nearest = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    return nearest + 8 * (scaled < 0), E2M1[nearest] * torch.where(scaled < 0, -1.0, 1.0)


def _in_pairs(codes: torch.Tensor) -> torch.Tensor:
    return (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)


def _float4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """NVFP4: packed codes, scales [N, K/16] in E4M3, the factor of all scales, and the weight."""
    groups = weight.reshape(weight.shape[0], -1, 16)
    factor = weight.abs().max() / (6 * 448)
    scale = (groups.abs().amax(-1) / 6 / factor).to(torch.float8_e4m3fn)
    wide = (scale.float() * factor)[..., None]
    codes, values = _nearest_e2m1(torch.where(wide == 0, 0.0, groups / wide))
    return _in_pairs(codes.flatten(1)), scale, factor, (values * wide).flatten(1)


def packed_int4(weight: torch.Tensor, group: int) -> Packed:
    """compressed-tensors' `pack-quantized`: eight in a word along K, each eight more than its value."""
    groups = weight.reshape(weight.shape[0], -1, group)
    scale = (groups.abs().amax(-1) / 7.5).to(torch.bfloat16)
    codes = (groups / scale.float()[..., None]).round().clamp(-8, 7)
    stands_for = (codes * scale.float()[..., None]).flatten(1)
    eights = (codes.flatten(1).long() + 8).reshape(weight.shape[0], -1, 8)
    words = sum(eights[..., place] << (4 * place) for place in range(8))
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)  # type: ignore[arg-type, operator]
    shape = torch.tensor(weight.shape)
    return {".weight_packed": words, ".weight_scale": scale, ".weight_shape": shape}, stands_for


def float8_rows(weight: torch.Tensor) -> Packed:
    """compressed-tensors' `float-quantized`: E4M3 with a scale for each row."""
    scale = (weight.abs().amax(-1, keepdim=True) / 448).to(torch.bfloat16)
    codes = (weight / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale": scale}, codes.float() * scale.float()


def packed_float4(weight: torch.Tensor) -> Packed:
    """compressed-tensors' `nvfp4-pack-quantized`: the global scale divides."""
    codes, scale, factor, _ = _float4(weight)
    divisor = (1 / factor).reshape(1)
    stands_for = _unpacked(codes) * (scale.float() / divisor).repeat_interleave(16, 1)
    tensors = {".weight_packed": codes, ".weight_scale": scale, ".weight_global_scale": divisor}
    return tensors | {".input_global_scale": torch.ones(1)}, stands_for


def _unpacked(codes: torch.Tensor) -> torch.Tensor:
    both = torch.stack([codes & 15, codes >> 4], -1).flatten(1).long()
    return E2M1[both & 7] * torch.where(both >= 8, -1.0, 1.0)


def modelopt_float8(weight: torch.Tensor) -> Packed:
    """ModelOpt's FP8: one scale for a weight, one for its input."""
    scale = weight.abs().max() / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale": scale, ".input_scale": torch.tensor(1.0)}, codes.float() * scale


def modelopt_float4(weight: torch.Tensor) -> Packed:
    """ModelOpt's NVFP4: the second scale multiplies the first."""
    codes, scale, factor, stands_for = _float4(weight)
    tensors = {".weight": codes, ".weight_scale": scale, ".weight_scale_2": factor, ".input_scale": torch.tensor(1.0)}
    return tensors, stands_for


def modelopt_int4(weight: torch.Tensor, group: int) -> Packed:
    """ModelOpt's INT4 AWQ: rows in pairs, the first in the low half; the input is multiplied first, for each weight by
    other numbers.
    """
    seed = int(weight[0, :1].contiguous().view(torch.int32))
    pre_scale = 0.5 + torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(seed))
    groups = (weight / pre_scale).reshape(weight.shape[0], -1, group)
    scale = groups.abs().amax(-1) / 7
    codes = (groups / scale[..., None]).round().clamp(-8, 7)
    nibbles = codes.flatten(1).to(torch.int8).view(torch.uint8) & 15
    tensors = {".weight": nibbles[0::2] | nibbles[1::2] << 4, ".weight_scale": scale, ".pre_quant_scale": pre_scale}
    return tensors, (codes * scale[..., None]).flatten(1) * pre_scale


def by_compressed_tensors(preset: str, group: int | None = None) -> Packer:
    """The packer of a preset of compressed-tensors; weights are of the data type that it unpacks to."""

    def pack(weight: torch.Tensor) -> Packed:
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.compressors.format import infer_module_format
        from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
        from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

        scheme: Any = preset_name_to_scheme(preset, ["Linear"])
        arguments = scheme.weights
        if group is not None:
            arguments.group_size = group
        total = None
        if arguments.group_size:
            groups = weight.unflatten(1, (-1, arguments.group_size))
            low, high = groups.amin(-1), groups.amax(-1)
            if arguments.strategy == "tensor_group":
                total = generate_gparam(weight.amin(), weight.amax())
        else:
            low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        scale, zero = calculate_qparams(low, high, arguments, total)
        form = infer_module_format(torch.nn.Linear, scheme).value
        compressor: Any = BaseCompressor.get_value_from_registry(form)
        state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero, "weight_global_scale": total}
        packed = compressor.compress({name: value for name, value in state.items() if value is not None}, scheme)
        stands_for = compressor.decompress(packed, scheme)["weight"]
        tensors = {f".{name}": value for name, value in packed.items()}
        if total is not None:
            tensors[".input_global_scale"] = torch.ones(1)
        return tensors, stands_for

    return pack


def by_modelopt(algorithm: str, group: int = 0) -> Packer:
    """The packer of an algorithm of ModelOpt's."""

    def pack(weight: torch.Tensor) -> Packed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own, when it is imported
            from modelopt.torch.export.quant_utils import from_quantized_weight, pack_int4_in_uint8, to_quantized_weight
            from modelopt.torch.quantization.qtensor import NVFP4QTensor
        if algorithm == "NVFP4":
            made, scale, total = NVFP4QTensor.quantize(weight, 16)
            options = {"scale": scale, "double_scale": total, "block_sizes": {-1: 16}}
            stands_for = made.dequantize(dtype=torch.float32, **options)
            tensors = {".weight": made._quantized_data, ".weight_scale": scale, ".weight_scale_2": total}
            return {**tensors, ".input_scale": torch.tensor(1.0)}, stands_for
        if algorithm == "FP8":
            scale = weight.abs().amax() / 448
            codes = to_quantized_weight(weight, scale, "fp8")
            stands_for = from_quantized_weight(codes, scale, "fp8", torch.float32)
            return {".weight": codes, ".weight_scale": scale, ".input_scale": torch.tensor(1.0)}, stands_for
        tensors, stands_for = modelopt_int4(weight, group)  # the library has no way back from packed ones
        own = pack_int4_in_uint8(weight / tensors[".pre_quant_scale"], tensors[".weight_scale"], group)
        return {**tensors, ".weight": own}, stands_for

    return pack
