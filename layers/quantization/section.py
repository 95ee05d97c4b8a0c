"""The `quantization` section of a checkpoint's `config.json`: TensorRT-LLM's keys, and the format of each parameter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.foreign import reading
from trtllm_port.layers.definition.quantized import CODES, WeightFormat, part_name, parts_of

MIXED = "MIXED_PRECISION"


def quantization_section(
    formats: Mapping[str, WeightFormat],
    shapes: Mapping[str, tuple[int, ...]],
    exclude_modules: Collection[str] = (),
) -> dict[str, Any]:
    """What a checkpoint says of its quantized parameters.

    Args:
        formats: of the quantized parameters, by name.
        shapes: of all tensors in the checkpoint, by name.
        exclude_modules: those that are in the checkpoint's data type, by name or pattern.
    """
    algorithms = sorted({_algorithm(name, found, shapes) for name, found in formats.items()})
    sizes = {_group_size(name, found, shapes) for name, found in formats.items()}
    parts = {part for name in formats for part in parts_of(name, shapes)}
    return {
        "quant_algo": algorithms[0] if len(algorithms) == 1 else MIXED,
        "kv_cache_quant_algo": None,
        "group_size": next(iter(sizes)) if len(sizes) == 1 else None,
        "has_zero_point": "zero_point" in parts,
        "pre_quant_scale": "pre_scale" in parts,
        "exclude_modules": sorted(exclude_modules),
        "parameters": {name: asdict(found) for name, found in sorted(formats.items())},
    }


def read_formats(content: Mapping[str, Any]) -> dict[str, WeightFormat]:
    """How the parameters of a checkpoint are quantized, from its `config.json`; of one that is not, nothing.

    Raises:
        CheckpointError: the section is damaged.
    """
    section = content.get("quantization")
    if section is None:
        return {}
    with reading("config.json", CheckpointError, failed="has a damaged section `quantization`"):
        return {str(name): WeightFormat(**entry) for name, entry in section["parameters"].items()}


def _group_size(name: str, found: WeightFormat, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The features that share a scale; None: all."""
    count = shapes[part_name(name, "scale")][found.inputs]
    _, in_a_byte = CODES[found.kind]
    size = shapes[name][found.inputs] * (in_a_byte if found.inputs == -1 else 1)
    return None if count == 1 else size // count


def _algorithm(name: str, found: WeightFormat, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """TensorRT-LLM's name of it, and a name of its kind where that has none: weights of FP8 and NVFP4 alone."""
    parts = parts_of(name, shapes)
    if found.kind == "int4":
        return "W4A16_AWQ" if "pre_scale" in parts else "W4A16_GPTQ" if "permutation" in parts else "W4A16"
    if found.activation == "fp8_e4m3":
        return "FP8"
    if found.kind == "int8":
        return "W8A16" if found.activation is None else "W8A8_SQ_PER_CHANNEL"
    if found.kind == "fp4_e2m1":
        return "W4A16_NVFP4" if "global_scale" in parts else "W4A16_MXFP4"
    return "W8A16_FP8"
