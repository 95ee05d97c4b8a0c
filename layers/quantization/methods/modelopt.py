"""`modelopt`: what NVIDIA's Model Optimizer exports.

Source: nvidia-modelopt `torch/export/quant_utils.py` (`to_quantized_weight`, `pack_int4_in_uint8`),
`torch/quantization/qtensor/nvfp4_tensor.py` (`dequantize`) and `torch/export/convert_hf_config.py` (the config's flat
form). W = code * scale; NVFP4: code * (scale * `weight_scale_2`). The input is multiplied by `pre_quant_scale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from trtllm_port.layers.quantization.layouts.elementwise import ElementLayout, Float4Layout
from trtllm_port.layers.quantization.layouts.layout import FLOATS, Form, Layout, Unit, grid, undivided
from trtllm_port.layers.quantization.layouts.packing import from_twos_complement
from trtllm_port.layers.quantization.layouts.scheme import (
    EVERY,
    PER_CHANNEL,
    PER_TENSOR,
    WHOLE,
    ModuleScheme,
    Names,
    QuantizationScheme,
    Target,
    as_globs,
)
from trtllm_port.layers.quantization.layouts.settings import Settings, shown
from trtllm_port.layers.quantization.layouts.weight import ActivationScheme, QuantizedWeight

PARTS = {"scale": ("weight_scale",), "input_scale": ("input_scale",), "pre_scale": ("pre_quant_scale",)}
FORM = Form("weight", "weight", PARTS)
FORM4 = Form("weight", "weight", {**PARTS, "global_scale": ("weight_scale_2",)})

_FP8 = ActivationScheme(kind="fp8_e4m3", granularity="tensor", dynamic=False)
_FP8_TOKEN = ActivationScheme(kind="fp8_e4m3", granularity="token", dynamic=True)
_INT8 = ActivationScheme(kind="int8", granularity="tensor", dynamic=False)
_FP4 = ActivationScheme(kind="fp4_e2m1", granularity="group", dynamic=True, group_size=16, two_level=True)
_NVFP4 = ModuleScheme(layout="nvfp4", kind="fp4_e2m1", block=(1, 16), activation=_FP4)
_AWQ = ModuleScheme(layout="int4", kind="int4", block=(1, 128))
_BLOCKS = ModuleScheme(layout="fp8-blocks", kind="fp8_e4m3", block=(128, 128))

#: `quant_algo` → how a module is quantized; where blocks are groups of a row, `group_size` says of how many
ALGORITHMS = {
    "FP8": ModuleScheme(layout="elements", kind="fp8_e4m3", block=PER_TENSOR, activation=_FP8),
    "FP8_PER_CHANNEL_PER_TOKEN": ModuleScheme(
        layout="elements", kind="fp8_e4m3", block=PER_CHANNEL, activation=_FP8_TOKEN
    ),
    "FP8_PB_WO": _BLOCKS,
    "FP8_BLOCK_SCALES": _BLOCKS,
    "NVFP4": _NVFP4,
    "NVFP4_AWQ": _NVFP4,
    "W4A16_NVFP4": replace(_NVFP4, activation=None),
    "W4A16_AWQ": _AWQ,
    "W8A16": ModuleScheme(layout="elements", kind="int8", block=PER_CHANNEL),
    "W8A8_SQ_PER_CHANNEL": ModuleScheme(layout="elements", kind="int8", block=PER_CHANNEL, activation=_INT8),
}
MIXED, NONE = "MIXED_PRECISION", ("NO_QUANT", "NONE")


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of `hf_quant_config.json`, nested, or of a flat `quantization_config`."""
    settings.ignore("producer", "config_groups")
    fields = settings.child("quantization") if settings.has("quantization") else settings
    fields = fields or settings
    fields.ignore("has_zero_point", "pre_quant_scale", "smoothquant_val", "lora_rank")
    ignored = (*fields.texts("exclude_modules"), *fields.texts("ignore"))
    layers = fields.child("quantized_layers")
    algorithm = fields.text("quant_algo", "none")
    targets: list[Target] = []
    for name in layers.values if layers is not None else ():
        layer = layers.child(name) if layers is not None else None
        scheme = None if layer is None else _scheme(layer, layer.text("quant_algo", "none"))
        if scheme is not None:
            targets.append(Target(Names(exact=frozenset((name,))), scheme, by_name=True))
    if algorithm.upper() != MIXED:
        scheme = _scheme(fields, algorithm)
        targets += [] if scheme is None else [Target(EVERY, scheme)]
    elif not targets:
        fields.problem("quantized_layers", f"names no layer, though `quant_algo` is {MIXED}")
    cache = fields.get("kv_cache_quant_algo") or fields.get("kv_cache_scheme")
    return QuantizationScheme(
        method="modelopt",
        targets=tuple(targets),
        ignored=as_globs(ignored),
        kv_cache=_cache(cache),
    )


def _scheme(fields: Settings, algorithm: str) -> ModuleScheme | None:
    """Of one `quant_algo` with its `group_size`; None where nothing is quantized, or the algorithm is not read."""
    fields.ignore("has_zero_point", "pre_quant_scale", "awq_block_size")
    own = fields.get("group_size") or None  # 0: none
    size = 0 if own is None else fields.integer("group_size", 0)
    if algorithm.upper() in NONE:
        return None
    scheme = ALGORITHMS.get(algorithm.upper())
    if scheme is None:
        known = f"expected one of {', '.join(ALGORITHMS)}"
        fields.problem("quant_algo", f"is {shown(fields.get('quant_algo'))}, {known}")
        return None
    if size and scheme.block is not None and scheme.block[0] == 1 and scheme.block[1] != WHOLE:
        activation = scheme.activation and replace(scheme.activation, group_size=size)
        return replace(scheme, block=(1, size), activation=activation)
    return replace(scheme, block=(size, size)) if size and scheme == _BLOCKS else scheme


def _cache(stored: object) -> str | None:
    if isinstance(stored, dict):
        return {"float": "fp8_e4m3", "int": "int8"}.get(str(stored.get("type")), "by an unnamed method")
    return None if stored is None else shown(stored).strip("'").lower()


class BlockLayout(ElementLayout):
    """E4M3 codes with a scale for each block of rows and columns, stored as [N/128, 1, K/128, 1]."""

    def scale_shapes(self, unit: Unit) -> tuple[tuple[int, ...], ...]:
        rows, columns = grid(self.shape(unit), self.block(unit))[-2:]
        return (rows, 1, columns, 1), (rows, columns)


@dataclass(frozen=True)
class Int4Layout(Layout):
    """uint8 [N/2, K]: rows 2i (low nibble) and 2i+1 in two's complement; `weight_scale` [N, K/g]."""

    forms: tuple[Form, ...] = (FORM,)

    def shape(self, unit: Unit) -> tuple[int, ...]:
        rows, columns = unit.shape()
        return 2 * rows, columns

    def header(self, unit: Unit) -> Iterator[str]:
        if len(unit.shape()) != 2 or 0 in unit.shape():
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected pairs of rows, and columns"
            return
        block = self.block(unit)
        yield from undivided(unit, unit.shape()[1], block[1])
        yield from unit.expect("codes", ("uint8",))
        yield from unit.need("scale")
        yield from unit.expect("scale", FLOATS, grid(self.shape(unit), block))
        yield from unit.expect("pre_scale", FLOATS, unit.shape()[1:])

    def read(self, unit: Unit) -> QuantizedWeight:
        data = unit.tensor()
        pairs = torch.stack((data & 15, data >> 4), 1).flatten(0, 1)
        return QuantizedWeight(
            kind="int4",
            codes=from_twos_complement(pairs),
            block=self.block(unit),
            scale=unit.tensor("scale"),
            pre_scale=unit.tensor("pre_scale") if unit.has("pre_scale") else None,
        )


LAYOUTS: dict[str, Layout] = {
    "elements": ElementLayout((FORM,)),
    "fp8-blocks": BlockLayout((FORM,)),
    "nvfp4": Float4Layout((FORM4,)),
    "int4": Int4Layout(),
}
