"""`awq`: what AutoAWQ writes, in its version `gemm`.

Source: autoawq `modules/linear/gemm.py` and `utils/packing_utils.py` (`dequantize_gemm`): W[n, k] = (q - z) * s, z and
s of the group of k. Eight rows are in a word, in the order of `packing.AWQ_NIBBLES`; nothing is added to zero points.
Without them they are 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trtllm_port.layers.quantization.layouts.layout import FLOATS, Form, Layout, Unit, undivided
from trtllm_port.layers.quantization.layouts.packing import signed, unpack_awq
from trtllm_port.layers.quantization.layouts.scheme import EVERY, QuantizationScheme, Target, as_transformers
from trtllm_port.layers.quantization.layouts.settings import Settings
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight
from trtllm_port.layers.quantization.methods.gptq import group_scheme

FORM = Form("weight", "qweight", {"scale": ("scales",), "zero_point": ("qzeros",)})
#: in the configs of the format, and without a meaning for what is stored
MADE_BY = ("backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config", "desc_act", "sym", "meta")


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of a `quantization_config`; `w_bit` and `q_group_size` are AutoAWQ's own names."""
    settings.ignore(*MADE_BY)
    for key in ("version", "format", "checkpoint_format"):
        settings.text(key, "gemm", ("gemm",))
    bits = "bits" if settings.get("bits") is not None else "w_bit"
    settings.integer(bits, 4, (4,))
    group = "group_size" if settings.get("group_size") is not None else "q_group_size"
    scheme = group_scheme(settings, "awq", bits=bits, group=group)
    scheme = replace(scheme, symmetric=not settings.flag("zero_point", True))
    ignored = as_transformers(settings, "modules_to_not_convert")
    return QuantizationScheme(method="awq", targets=(Target(EVERY, scheme),), ignored=ignored)


@dataclass(frozen=True)
class AwqLayout(Layout):
    """`qweight` [K, N/8] and `qzeros` [K/g, N/8] int32, `scales` [K/g, N]."""

    forms: tuple[Form, ...] = (FORM,)

    def shape(self, unit: Unit) -> tuple[int, ...]:
        columns, words = unit.shape()
        return 8 * words, columns

    def header(self, unit: Unit) -> Iterator[str]:
        yield from unit.expect("codes", ("int32",))
        yield from unit.need("scale", *(() if unit.scheme.symmetric else ("zero_point",)))
        if len(unit.shape()) != 2 or 0 in unit.shape():
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected columns and words"
            return
        rows, columns = self.shape(unit)
        yield from undivided(unit, columns, self.block(unit)[1])
        groups = columns // self.block(unit)[1]
        yield from unit.expect("scale", FLOATS, (groups, rows))
        yield from unit.expect("zero_point", ("int32",), (groups, rows // 8))

    def read(self, unit: Unit) -> QuantizedWeight:
        zero = signed(unpack_awq(unit.tensor("zero_point")), 4).T if unit.has("zero_point") else None
        return QuantizedWeight(
            kind="int4",
            codes=signed(unpack_awq(unit.tensor()), 4).T.contiguous(),
            block=self.block(unit),
            scale=unit.tensor("scale").T,
            zero_point=zero if zero is not None and bool(zero.any()) else None,
        )


LAYOUTS = {"awq": AwqLayout()}
