"""Small Llamas as published quantized ones are stored: each method's tensors, and the weights that they stand for.

Weights are rounded and packed plainly here, element by element, as the methods' own documents describe it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Packed = tuple[dict[str, torch.Tensor], torch.Tensor]
"""Tensors by what follows the module's name, and the weight [N, K] in float32 that they stand for."""
GROUP = 16
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # element of each nibble of a word, the lowest first


def fp8(weight: torch.Tensor, block: int = GROUP) -> Packed:
    """One scale for each block of as many rows and columns; those at the ends may be smaller."""
    rows, columns = weight.shape
    scale = torch.empty(-(-rows // block), -(-columns // block))
    wide = torch.empty_like(weight)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            part = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            scale[i, j] = wide[part] = weight[part].abs().max() / 448
    codes = (weight / wide).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale_inv": scale}, codes.float() * wide


def mxfp4(parameter: torch.Tensor) -> Packed:
    """Stacked experts [X, in, out], in groups of 32 along `in` whose scale is a power of two."""
    groups = parameter.transpose(1, 2).reshape(parameter.shape[0], parameter.shape[2], -1, 32)
    exponent = (groups.abs().amax(-1).log2().floor() - 2).clamp(-127, 127)
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    scaled = groups * 2.0 ** -exponent[..., None]
    nearest = (scaled.abs()[..., None] - values).abs().argmin(-1)
    codes = (nearest + 8 * (scaled < 0)).to(torch.uint8)
    stands_for = values[nearest] * torch.where(scaled < 0, -1.0, 1.0) * 2.0 ** exponent[..., None]
    tensors = {"_blocks": codes[..., 0::2] + 16 * codes[..., 1::2], "_scales": (exponent + 127).to(torch.uint8)}
    return tensors, stands_for.flatten(2).transpose(1, 2).contiguous()


def _integers(weight: torch.Tensor, order: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [K, N] and zero points [K/g, N] from 0 to 15, scales [K/g, N]; groups follow an order of columns."""
    groups = weight.T[order].reshape(-1, group, weight.shape[0])
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scale = ((high - low) / 14).half().float()
    zero = (-low / scale).round().clamp(0, 14) + 1
    codes = ((groups / scale[:, None]).round() + zero[:, None]).clamp(0, 15)
    unordered = torch.empty_like(weight.T)
    unordered[order] = codes.reshape(-1, weight.shape[0])
    return unordered.long(), zero.long(), scale


def _words(codes: torch.Tensor, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """[..., 8 n] numbers from 0 to 15 → [..., n] int32."""
    parts = codes.reshape(*codes.shape[:-1], -1, 8)[..., list(order)]
    words = sum(parts[..., place] << (4 * place) for place in range(8))
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).contiguous()  # type: ignore[arg-type]


def gptq(weight: torch.Tensor, group: int = GROUP, *, own_order: bool = False) -> Packed:
    """4 bits with zero points; groups are of columns in another order than the weight's.

    `own_order`: in one that no other weight has, as experts do, which see other tokens each; else all of as many
    columns have one.
    """
    columns = weight.shape[1]
    seed = int(weight[0, :1].contiguous().view(torch.int32)) if own_order else columns
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
    codes, zero, scale = _integers(weight, order, group)
    g_idx = torch.empty(columns, dtype=torch.int32)
    g_idx[order] = (torch.arange(columns) // group).to(torch.int32)
    tensors = {
        ".qweight": _words(codes.T).T.contiguous(),
        ".qzeros": _words(zero - 1),
        ".scales": scale.half(),
        ".g_idx": g_idx,
    }
    return tensors, ((codes - zero[g_idx.long()]).float() * scale[g_idx.long()]).T.contiguous()


def awq(weight: torch.Tensor, group: int = GROUP) -> Packed:
    """4 bits with zero points, eight rows of the weight in a word."""
    codes, zero, scale = _integers(weight, torch.arange(weight.shape[1]), group)
    tensors = {".qweight": _words(codes, AWQ_ORDER), ".qzeros": _words(zero, AWQ_ORDER), ".scales": scale.half()}
    of_column = torch.arange(weight.shape[1]) // group
    return tensors, ((codes - zero[of_column]).float() * scale[of_column]).T.contiguous()


def modelopt_fp8(weight: torch.Tensor) -> Packed:
    """One scale for all of the weight, and one for what goes in."""
    scale = weight.abs().max() / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    tensors = {".weight": codes, ".weight_scale": scale, ".input_scale": torch.tensor(0.02)}
    return tensors, codes.float() * scale


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def nvfp4(weight: torch.Tensor) -> Packed:
    """ModelOpt's: groups of 16 with scales in float8, which have one scale of their own."""
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    second = weight.abs().max() / (6 * 448)
    first = (groups.abs().amax(-1) / (6 * second)).to(torch.float8_e4m3fn)
    scale = first.float() * second
    scaled = groups / scale[..., None]
    nearest = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    codes = (nearest + 8 * (scaled < 0)).to(torch.uint8).flatten(1)
    stands_for = E2M1[nearest] * torch.where(scaled < 0, -1.0, 1.0) * scale[..., None]
    tensors = {".weight": codes[:, 0::2] + 16 * codes[:, 1::2], ".weight_scale": first, ".weight_scale_2": second}
    return tensors, stands_for.flatten(1)


def awq_lite(weight: torch.Tensor) -> Packed:
    """ModelOpt's W4A16_AWQ: two rows in a byte, and factors of the features that go in."""
    rows, columns = weight.shape
    factor = 2 ** torch.empty(columns).uniform_(-1, 1, generator=torch.Generator().manual_seed(columns))
    groups = (weight / factor).reshape(rows, -1, GROUP)
    scale = groups.abs().amax(-1) / 7
    codes = (groups / scale[..., None]).round().clamp(-8, 7)
    stands_for = (codes * scale[..., None]).flatten(1) * factor
    nibbles = codes.flatten(1).long() % 16
    packed = (nibbles[0::2] + 16 * nibbles[1::2]).to(torch.uint8)
    return {".weight": packed, ".weight_scale": scale, ".pre_quant_scale": factor}, stands_for


METHODS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], Packed]]] = {
    "fp8": ({"quant_method": "fp8", "weight_block_size": [GROUP, GROUP], "activation_scheme": "dynamic"}, fp8),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False}, gptq),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}, awq),
}

MODELOPT = {"quant_method": "modelopt", "group_size": GROUP, "ignore": ["lm_head"]}
BY_MODELOPT: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], Packed]]] = {
    "nvfp4": (MODELOPT | {"quant_algo": "W4A16_NVFP4"}, nvfp4),
    "awq_lite": (MODELOPT | {"quant_algo": "W4A16_AWQ"}, awq_lite),
}


def quantize(model_dir: Path, output: Path, method: str) -> dict[str, torch.Tensor]:
    """Write a model with all projections of its layers quantized.

    Returns:
        The weights that the files stand for, by the plain model's names.
    """
    return quantize_with(model_dir, output, *(METHODS | BY_MODELOPT)[method])


def quantize_with(
    model_dir: Path,
    output: Path,
    settings: dict[str, Any],
    pack: Callable[[torch.Tensor], Packed],
    which: str = r".*_proj\.weight",
) -> dict[str, torch.Tensor]:
    """As `quantize`, with a config and a packer of one's own, of the tensors whose names match."""
    output.mkdir()
    for path in model_dir.glob("*.json"):
        shutil.copy(path, output)
    config = json.loads((model_dir / "config.json").read_text())
    (output / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    stored, plain = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, tensor in load_file(model_dir / "model.safetensors").items():
        if re.fullmatch(which, name):
            tensors, plain[name] = pack(tensor.float())
            stored |= {name.removesuffix(".weight") + ending: part for ending, part in tensors.items()}
        else:
            stored[name] = plain[name] = tensor
    save_file(stored, output / "model.safetensors")
    return plain
