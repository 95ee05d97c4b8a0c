"""`compressed-tensors`: what llm-compressor writes.

Source: compressed-tensors `compressors/` (`naive_quantized`, `pack_quantized`, `nvfp4`, `mxfp4`, `mxfp8`) and
`quantization/lifecycle/forward_helpers.py::_dequantize`: W = (code - zero point) * scale, or, with a global scale,
code * (scale / global scale). Packed integers are 2^(bits-1) more than their value, zero points likewise; those are
packed along the rows. `weight_g_idx` (act-order) is of versions before 0.20.
"""

from __future__ import annotations

from typing import cast

from trtllm_port.layers.quantization.layouts.elementwise import ElementLayout, Float4Layout
from trtllm_port.layers.quantization.layouts.layout import POWERS, Form, Layout
from trtllm_port.layers.quantization.layouts.packed_integers import PackedIntegers
from trtllm_port.layers.quantization.layouts.scheme import (
    PER_CHANNEL,
    PER_TENSOR,
    ModuleScheme,
    Names,
    QuantizationScheme,
    Target,
    as_compressed_tensors,
)
from trtllm_port.layers.quantization.layouts.settings import Settings, shown
from trtllm_port.layers.quantization.layouts.weight import ActivationScheme, Granularity, Kind

INPUT = {"input_scale": ("input_scale",), "input_zero_point": ("input_zero_point",)}
WEIGHT = {"scale": ("weight_scale",), "zero_point": ("weight_zero_point",), **INPUT}
PACKED = {**WEIGHT, "g_idx": ("weight_g_idx",), "shape": ("weight_shape",)}
FLOAT4 = {
    "scale": ("weight_scale",),
    "global_scale": ("weight_global_scale",),
    "input_global_scale": ("input_global_scale",),
}

LAYOUTS: dict[str, Layout] = {
    "elements": ElementLayout((Form("weight", "weight", WEIGHT),)),
    "pack-quantized": PackedIntegers((Form("weight", "weight_packed", PACKED),)),
    "nvfp4-pack-quantized": Float4Layout((Form("weight", "weight_packed", FLOAT4),), divides=True),
    "mxfp4-pack-quantized": Float4Layout((Form("weight", "weight_packed", FLOAT4),), POWERS, has_global=False),
    "mxfp8-quantized": ElementLayout((Form("weight", "weight", WEIGHT),), POWERS),
}
#: format → layout, and the kinds of codes that it has
FORMATS: dict[str, tuple[str, tuple[Kind, ...]]] = {
    "float-quantized": ("elements", ("fp8_e4m3",)),
    "int-quantized": ("elements", ("int8",)),
    "naive-quantized": ("elements", ("fp8_e4m3", "int8")),
    "pack-quantized": ("pack-quantized", ("int4", "int8")),
    "nvfp4-pack-quantized": ("nvfp4-pack-quantized", ("fp4_e2m1",)),
    "mxfp4-pack-quantized": ("mxfp4-pack-quantized", ("fp4_e2m1",)),
    "mxfp8-quantized": ("mxfp8-quantized", ("fp8_e4m3",)),
}
KINDS: dict[tuple[str, int], Kind] = {
    ("int", 4): "int4",
    ("int", 8): "int8",
    ("float", 8): "fp8_e4m3",
    ("float", 4): "fp4_e2m1",
}
STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block", "token", "attn_head")
MADE_BY = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")


def read_scheme(settings: Settings) -> QuantizationScheme:
    """The scheme of a `quantization_config`: groups of modules, those named before those of a class."""
    settings.ignore("quantization_status", "global_compression_ratio", "version", "run_compressed")
    form = settings.text("format", "dense", (*FORMATS, "mixed-precision"))
    sparsity = settings.child("sparsity_config")
    if sparsity is not None and sparsity.values and sparsity.text("format", "dense") != "dense":
        sparsity.problem("format", f"is {shown(sparsity.get('format'))}: sparse weights are not read")
    targets: list[Target] = []
    groups = settings.child("config_groups")
    for name in groups.values if groups is not None else ():
        group = groups.child(name) if groups is not None else None
        if group is not None:
            targets += _targets(group, form)
    if not targets and not settings.problems:
        settings.problem("config_groups", "has no group with weights")
    by_class = {target.scheme for target in targets if not target.by_name}
    if len(by_class) > 1:
        settings.problem("config_groups", "quantizes several classes of modules differently, and names tell no class")
    cache = settings.child("kv_cache_scheme")
    return QuantizationScheme(
        method="compressed-tensors",
        targets=tuple(sorted(targets, key=lambda target: (not target.by_name, bool(target.names.starts)))),
        ignored=as_compressed_tensors(settings, "ignore", settings.texts("ignore")),
        kv_cache=None if cache is None else _kind(cache),
    )


def _targets(group: Settings, default: str) -> list[Target]:
    """One for the names that a group lists, one for its expressions, one for its classes."""
    texts = group.texts("targets")
    weights = group.child("weights")
    if weights is None or not texts:
        return []
    scheme = _scheme(group, weights, group.text("format", default, tuple(FORMATS)))
    if scheme is None:
        return []
    classes = [text for text in texts if text[:1].isupper() and text.isidentifier()]
    names = as_compressed_tensors(group, "targets", [text for text in texts if text not in classes])
    found = [Target(Names(exact=names.exact), scheme, True), Target(Names(starts=names.starts), scheme, True)]
    return found + ([Target(Names(every=True), scheme)] if classes else [])


def _scheme(group: Settings, weights: Settings, form: str) -> ModuleScheme | None:
    kind, block = _kind(weights), _block(weights)
    if kind is None or block is None or form not in FORMATS:
        return None
    layout, kinds = FORMATS[form]
    if kind not in kinds:
        weights.problem("num_bits", f"is {shown(weights.get('num_bits'))}, which the format `{form}` does not have")
    if weights.get("dynamic"):
        weights.problem("dynamic", f"is {shown(weights.get('dynamic'))}, expected false")
    if group.get("output_activations") is not None:
        group.problem(
            "output_activations", f"is {shown(group.get('output_activations'))}: quantized outputs are not read"
        )
    weights.ignore("actorder", *MADE_BY)
    inputs = group.child("input_activations")
    return ModuleScheme(
        layout=layout,
        kind=kind,
        block=block,
        symmetric=weights.flag("symmetric", True),
        activation=None if inputs is None else _activation(inputs),
    )


def _kind(arguments: Settings) -> Kind | None:
    """Of the codes of weights, activations or the cache; None, and a problem, for one that is not read."""
    arguments.ignore("num_bits", "type", "strategy", "symmetric", "dynamic", *MADE_BY)
    type_of, bits = arguments.text("type", "int", ("int", "float")), arguments.integer("num_bits", 8)
    if (type_of, bits) not in KINDS:
        arguments.problem("num_bits", f"is {bits} of type {type_of}, expected int 4 or 8, float 4 or 8")
    return KINDS.get((type_of, bits))


def _block(weights: Settings) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None, and a problem, for a strategy that weights do not have."""
    group = weights.integer("group_size", -1) if weights.get("group_size") != -1 else -1
    guess = "group" if group > 0 else "channel" if weights.get("group_size") == -1 else "tensor"
    strategy = weights.text("strategy", guess, STRATEGIES)
    structure = weights.pair("block_structure")
    if strategy in ("tensor", "channel"):
        return PER_TENSOR if strategy == "tensor" else PER_CHANNEL
    if strategy in ("group", "tensor_group") and group > 0:
        return 1, group
    if strategy == "block" and structure is not None:
        return structure
    weights.problem("strategy", f"is {strategy} with group_size {shown(weights.get('group_size'))}")
    return None


def _activation(inputs: Settings) -> ActivationScheme | None:
    kind = _kind(inputs)
    inputs.ignore("actorder", "block_structure")
    strategy = inputs.text("strategy", "tensor", STRATEGIES)
    dynamic = inputs.get("dynamic")
    if dynamic not in (None, True, False, "local"):
        inputs.problem("dynamic", f"is {shown(dynamic)}, expected true, false or local")
    grouped = strategy in ("group", "tensor_group")
    size = inputs.integer("group_size", 0) if grouped else None
    inputs.ignore("group_size")
    if strategy not in ("tensor", "token", "group", "tensor_group") or size == 0:
        inputs.problem("strategy", f"is {strategy} with group_size {shown(inputs.get('group_size'))}")
    if kind is None:
        return None
    return ActivationScheme(
        kind=kind,
        granularity=cast("Granularity", "group" if grouped else strategy),
        dynamic=bool(dynamic),
        group_size=size or None,
        two_level=dynamic == "local",
    )
