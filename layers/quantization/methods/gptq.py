"""`gptq`: what AutoGPTQ and gptqmodel write.

Source: gptqmodel `nn_modules/qlinear/__init__.py` (`pack_block`, `dequantize_weight`) and `utils/model.py`
(`convert_gptq_v1_to_v2_format_module`): W[n, k] = (q - z) * s, z and s of the group `g_idx[k]`. The checkpoint format
`gptq` stores zero points less 1, taken from each 32-bit word as one number: a zero point of 0 borrows from the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from trtllm_port.layers.quantization.layouts.layout import FLOATS, Form, Layout, Unit, undivided
from trtllm_port.layers.quantization.layouts.packed_integers import out_of_order
from trtllm_port.layers.quantization.layouts.packing import signed, unpack_words
from trtllm_port.layers.quantization.layouts.scheme import EVERY, WHOLE, ModuleScheme, Names, QuantizationScheme, Target
from trtllm_port.layers.quantization.layouts.settings import Settings, shown
from trtllm_port.layers.quantization.layouts.weight import BITS, Kind, QuantizedWeight

KINDS: dict[int, Kind] = {4: "int4", 8: "int8"}
FORMATS = ("gptq", "gptq_v2")
FORM = Form("weight", "qweight", {"scale": ("scales",), "zero_point": ("qzeros",), "g_idx": ("g_idx",)})
#: in the configs of the format, and without a meaning for what is stored
MADE_BY = (
    *("damp_percent", "damp_auto_increment", "static_groups", "true_sequential", "model_seqlen", "meta", "dataset"),
    *("block_name_to_quantize", "module_name_preceding_first_block", "batch_size", "pad_token_id", "tokenizer"),
    *("use_cuda_fp16", "disable_exllama", "use_exllama", "exllama_config", "max_input_length", "cache_block_outputs"),
    *("backend", "act_group_aware", "mse", "offload_to_disk", "rotation", "model_name_or_path", "model_file_base_name"),
    *("modules_in_block_to_quantize", "lm_head", "desc_act", "is_marlin_format", "cache_examples_on_gpu"),
)


def group_scheme(settings: Settings, layout: str, *, bits: str = "bits", group: str = "group_size") -> ModuleScheme:
    """The scheme of one group size and one number of bits for all modules; a group size of -1 is all of a row."""
    kind = KINDS[settings.integer(bits, 4, tuple(KINDS))]
    size = WHOLE if settings.get(group) == -1 else settings.integer(group, 128)
    return ModuleScheme(layout=layout, kind=kind, block=(1, size), symmetric=False)


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of a `quantization_config`; `dynamic` has exceptions for modules, the first that matches counts."""
    settings.ignore(*MADE_BY, "sym", "method")
    layout = settings.text("checkpoint_format", settings.text("format", "gptq", FORMATS), FORMATS)
    if settings.text("format", layout, FORMATS) != layout:
        settings.problem("format", f"is {shown(settings.get('format'))}, but `checkpoint_format` is {shown(layout)}")
    settings.integer("pack_bits", 32, (32,))
    settings.text("pack_dtype", "int32", ("int32",))
    scheme = group_scheme(settings, layout)
    dynamic = settings.child("dynamic")
    exceptions = [] if dynamic is None else [_exception(dynamic, text, scheme) for text in dynamic.values]
    return QuantizationScheme(method="gptq", targets=(*exceptions, Target(EVERY, scheme)))


def _exception(dynamic: Settings, key: str, scheme: ModuleScheme) -> Target:
    """`-:` and an expression: not quantized; `+:` or nothing before it: quantized as the fields say."""
    names = Names(starts=dynamic.patterns(None, [key[2:] if key.startswith(("+:", "-:")) else key]))
    fields = dynamic.child(key)
    if key.startswith("-:"):
        return Target(names, None)
    if fields is None:
        dynamic.problem(key, "is null, expected an object")
        return Target(names, scheme)
    fields.ignore("sym", "desc_act", *MADE_BY)
    bits = fields.integer("bits", BITS[scheme.kind], tuple(KINDS))
    own = fields.get("group_size")
    size = WHOLE if own == -1 else fields.integer("group_size", scheme.block[1] if scheme.block else WHOLE)
    return Target(names, replace(scheme, kind=KINDS.get(bits, scheme.kind), block=(1, size)))


@dataclass(frozen=True)
class GptqLayout(Layout):
    """`qweight` [K·bits/32, N] and `qzeros` [K/g, N·bits/32] int32, `scales` [K/g, N], `g_idx` [K] int32.

    Attributes:
        less: what stored zero points are less than theirs.
    """

    less: int
    forms: tuple[Form, ...] = (FORM,)

    def shape(self, unit: Unit) -> tuple[int, ...]:
        words, rows = unit.shape()
        return rows, words * 32 // BITS[unit.scheme.kind]

    def header(self, unit: Unit) -> Iterator[str]:
        yield from unit.expect("codes", ("int32",))
        yield from unit.need("scale", "zero_point")
        if len(unit.shape()) != 2 or 0 in unit.shape():
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected words and rows"
            return
        rows, columns = self.shape(unit)
        per_word = 32 // BITS[unit.scheme.kind]
        yield from undivided(unit, columns, self.block(unit)[1])
        groups = columns // self.block(unit)[1]
        if rows % per_word:
            yield f"`{unit.tensors['codes']}` has {rows} rows, expected a multiple of {per_word}"
        yield from unit.expect("scale", FLOATS, (groups, rows))
        yield from unit.expect("zero_point", ("int32",), (groups, rows // per_word))
        yield from unit.expect("g_idx", ("int32", "int64"), (columns,))

    def values(self, unit: Unit) -> Iterator[str]:
        yield from super().values(unit)
        if unit.has("g_idx"):
            groups, stored = unit.shape("scale")[0], unit.tensor("g_idx")
            if int(stored.min()) < 0 or int(stored.max()) >= groups:
                yield f"`{unit.tensors['g_idx']}` is out of range: there are {groups} groups"

    def read(self, unit: Unit) -> QuantizedWeight:
        bits, block = BITS[unit.scheme.kind], self.block(unit)
        # the sum is of whole words and wraps, as the difference did that was stored
        ones = sum(self.less << shift for shift in range(0, 32, bits))
        zeros = (unit.tensor("zero_point").to(torch.int64) + ones).to(torch.int32)
        zero = signed(unpack_words(zeros, bits), bits).T
        return QuantizedWeight(
            kind=unit.scheme.kind,
            codes=signed(unpack_words(unit.tensor().T, bits), bits),
            block=block,
            scale=unit.tensor("scale").T,
            zero_point=zero if bool(zero.any()) else None,
            g_idx=out_of_order(unit.tensor("g_idx"), block[1]) if unit.has("g_idx") else None,
        )


LAYOUTS = {"gptq": GptqLayout(1), "gptq_v2": GptqLayout(0)}
