"""`fp8`: DeepSeek-V3, Qwen3-FP8 and the like.

Source: transformers `integrations/finegrained_fp8.py` (`Fp8Dequantize`, `FP8Linear`, `FP8Experts`) and the renamings of
`quantizers/quantizer_finegrained_fp8.py`. W = code * `weight_scale_inv` (a factor, whatever its name says) for each
block of 128 rows and columns; the last ones may be smaller. Scales are floats, or E8M0: 2^(byte - 127). An int8 weight
is two E2M1 codes a byte, whose blocks are what the shape of the scales says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trtllm_port.layers.quantization.layouts.elementwise import (
    SCALAR,
    ElementLayout,
    activation_scale,
    needs_input_scale,
)
from trtllm_port.layers.quantization.layouts.layout import FLOATS, POWERS, Form, Unit, powers
from trtllm_port.layers.quantization.layouts.packing import unpack_nibbles
from trtllm_port.layers.quantization.layouts.scheme import (
    EVERY,
    PER_TENSOR,
    ModuleScheme,
    QuantizationScheme,
    Target,
    as_transformers,
)
from trtllm_port.layers.quantization.layouts.settings import Settings
from trtllm_port.layers.quantization.layouts.weight import ActivationScheme, Kind, QuantizedWeight

BLOCK = (128, 128)  # what transformers takes where the config does not say


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of a `quantization_config`; `weight_block_size` null: one scale a tensor."""
    settings.text("fmt", "e4m3", ("e4m3", "float8_e4m3fn"))
    settings.text("scale_fmt", "float", ("float", "ue8m0"))
    settings.text("expert_dtype", "fp8", ("fp8", "fp4"))
    settings.ignore("dequantize", "modules_to_convert")
    static = settings.text("activation_scheme", "dynamic", ("dynamic", "static")) == "static"
    block = settings.pair("weight_block_size")
    if block is None:
        block = PER_TENSOR if settings.has("weight_block_size") else BLOCK
    scheme = ModuleScheme(layout="fp8", kind="fp8_e4m3", block=block, activation=_activation(static, block))
    ignored = as_transformers(settings, "modules_to_not_convert", "ignored_layers")
    return QuantizationScheme(method="fp8", targets=(Target(EVERY, scheme),), ignored=ignored)


def _activation(static: bool, block: tuple[int, int]) -> ActivationScheme:
    if static:
        return ActivationScheme(kind="fp8_e4m3", granularity="tensor", dynamic=False)
    if block == PER_TENSOR:
        return ActivationScheme(kind="fp8_e4m3", granularity="token", dynamic=True)
    return ActivationScheme(kind="fp8_e4m3", granularity="group", dynamic=True, group_size=block[1])


def _form(parameter: str, *more_scales: str, inputs: tuple[str, ...]) -> Form:
    parts = {"scale": (f"{parameter}_scale_inv", *more_scales), "input_scale": inputs}
    return Form(parameter, parameter, parts, generic=frozenset(("scale",)))


@dataclass(frozen=True)
class Fp8Layout(ElementLayout):
    """One E4M3 code an element, or two E2M1 codes a byte, of a matrix or of stacked experts."""

    forms: tuple[Form, ...] = (
        _form("weight", "scale", "qscale_weight", inputs=("activation_scale", "input_scale", "qscale_act")),
        *(_form(name, inputs=(f"{name}_activation_scale",)) for name in ("gate_up_proj", "up_proj", "down_proj")),
    )
    scale_dtypes: tuple[str, ...] = (*FLOATS, *POWERS)

    def kind(self, unit: Unit) -> Kind:
        return "fp4_e2m1" if unit.dtype() == "int8" else "fp8_e4m3"

    def shape(self, unit: Unit) -> tuple[int, ...]:
        *rest, columns = unit.shape()
        return *rest, 2 * columns if self.kind(unit) == "fp4_e2m1" else columns

    def header(self, unit: Unit) -> Iterator[str]:
        if self.kind(unit) == "fp8_e4m3" or len(unit.shape()) not in (2, 3):
            yield from super().header(unit)
            return
        yield from unit.need("scale")
        if not unit.has("scale"):
            return
        shape, blocks = self.shape(unit), unit.shape("scale")
        yield from unit.expect("scale", self.scale_dtypes)
        if len(blocks) != len(shape) or blocks[:-2] != shape[:-2] or 0 in (*blocks, *shape):
            yield f"`{unit.tensors['scale']}` has shape {blocks}, expected blocks of {shape}"
        elif shape[-2] % blocks[-2] or shape[-1] % blocks[-1]:
            yield f"`{unit.tensors['scale']}` has shape {blocks}, which does not divide {shape}"
        yield from needs_input_scale(unit)
        yield from unit.expect("input_scale", FLOATS, *SCALAR, unit.shape()[:-2])

    def block(self, unit: Unit) -> tuple[int, int]:
        if self.kind(unit) == "fp8_e4m3":
            return super().block(unit)
        (rows, columns), blocks = self.shape(unit)[-2:], unit.shape("scale")
        return rows // blocks[-2], columns // blocks[-1]

    def read(self, unit: Unit) -> QuantizedWeight:
        if self.kind(unit) == "fp8_e4m3":
            return super().read(unit)
        return QuantizedWeight(
            kind="fp4_e2m1",
            codes=unpack_nibbles(unit.tensor()),
            block=self.block(unit),
            scale=powers(unit.tensor("scale")),
            activation=unit.scheme.activation,
            activation_scale=activation_scale(unit),
        )


LAYOUTS = {"fp8": Fp8Layout()}
