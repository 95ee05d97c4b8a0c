"""`mxfp4`: gpt-oss, whose experts alone are quantized.

Source: transformers `integrations/mxfp4.py` (`_convert_moe_packed_tensors`): W = code * 2^(scale - 127), two E2M1 codes
a byte, the low nibble first, 32 elements of a row for each scale. The parameter of transformers is the transpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trtllm_port.layers.quantization.layouts.layout import POWERS, Form, Layout, Unit, powers
from trtllm_port.layers.quantization.layouts.packing import unpack_nibbles
from trtllm_port.layers.quantization.layouts.scheme import (
    EVERY,
    ModuleScheme,
    QuantizationScheme,
    Target,
    as_transformers,
)
from trtllm_port.layers.quantization.layouts.settings import Settings
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight

GROUP = 32


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of a `quantization_config`, which has no more than a list of modules."""
    settings.ignore("dequantize")
    scheme = ModuleScheme(layout="mxfp4", kind="fp4_e2m1", block=(1, GROUP))
    ignored = as_transformers(settings, "modules_to_not_convert")
    return QuantizationScheme(method="mxfp4", targets=(Target(EVERY, scheme),), ignored=ignored)


@dataclass(frozen=True)
class Mxfp4Layout(Layout):
    """`…_blocks` uint8 [X, N, K/32, 16] and `…_scales` uint8 [X, N, K/32] of X experts."""

    forms: tuple[Form, ...] = tuple(
        Form(name, f"{name}_blocks", {"scale": (f"{name}_scales",)}) for name in ("gate_up_proj", "down_proj")
    )

    def shape(self, unit: Unit) -> tuple[int, ...]:
        *stacked, groups, _ = unit.shape()
        return *stacked, groups * GROUP

    def parameter_shape(self, unit: Unit) -> tuple[int, ...]:
        *stacked, rows, columns = self.shape(unit)
        return *stacked, columns, rows

    def header(self, unit: Unit) -> Iterator[str]:
        shape = unit.shape()
        yield from unit.expect("codes", ("uint8",))
        yield from unit.need("scale")
        if len(shape) not in (3, 4) or shape[-1] != GROUP // 2 or 0 in shape:
            yield f"`{unit.tensors['codes']}` has shape {shape}, expected experts, rows, groups and {GROUP // 2} bytes"
            return
        yield from unit.expect("scale", POWERS, shape[:-1])

    def read(self, unit: Unit) -> QuantizedWeight:
        return QuantizedWeight(
            kind="fp4_e2m1",
            codes=unpack_nibbles(unit.tensor()).flatten(-2),
            block=(1, GROUP),
            scale=powers(unit.tensor("scale")),
            transposed=True,
        )


LAYOUTS = {"mxfp4": Mxfp4Layout()}
