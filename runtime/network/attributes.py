"""Reads the attributes of TensorRT's layers.

`network.get_layer(i)` returns a plain `ILayer`; assigning the layer's own class to `layer.__class__` opens its
attributes. The class must be assigned once only, and `type` read before: `IActivationLayer.type` hides `ILayer.type`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from trtllm_port.runtime.network.dtypes import FROM_TENSORRT

# layer type → (TensorRT's class, its attributes). Types that are not here have none that matter.
LAYER_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ACTIVATION": ("IActivationLayer", ("type", "alpha", "beta")),
    "CAST": ("ICastLayer", ("to_type",)),
    "CONCATENATION": ("IConcatenationLayer", ("axis",)),
    "CONDITION": ("IConditionLayer", ("conditional",)),
    "CONDITIONAL_INPUT": ("IIfConditionalInputLayer", ("conditional",)),
    "CONDITIONAL_OUTPUT": ("IIfConditionalOutputLayer", ("conditional",)),
    "CONSTANT": ("IConstantLayer", ()),
    "CUMULATIVE": ("ICumulativeLayer", ("op", "exclusive", "reverse")),
    "DEQUANTIZE": ("IDequantizeLayer", ("axis", "to_type")),
    "DIST_COLLECTIVE": ("IDistCollectiveLayer", ()),
    "DYNAMIC_QUANTIZE": ("IDynamicQuantizeLayer", ("axis", "block_size", "to_type", "scale_type")),
    "EINSUM": ("IEinsumLayer", ("equation",)),
    "ELEMENTWISE": ("IElementWiseLayer", ("op",)),
    "FILL": ("IFillLayer", ("operation", "shape", "alpha", "beta", "to_type")),
    "GATHER": ("IGatherLayer", ("axis", "mode", "num_elementwise_dims")),
    "ITERATOR": ("IIteratorLayer", ("loop", "axis", "reverse")),
    "KV_CACHE_UPDATE": ("IKVCacheUpdateLayer", ("cache_mode", "update_form")),
    "LOOP_OUTPUT": ("ILoopOutputLayer", ("loop", "kind", "axis")),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", ("op0", "op1")),
    "NON_ZERO": ("INonZeroLayer", ("indices_type",)),
    "NORMALIZATION": ("INormalizationLayer", ("epsilon", "axes", "num_groups", "is_v2")),
    "ONE_HOT": ("IOneHotLayer", ("axis",)),
    "QUANTIZE": ("IQuantizeLayer", ("axis", "to_type")),
    "RECURRENCE": ("IRecurrenceLayer", ("loop",)),
    "REDUCE": ("IReduceLayer", ("op", "axes", "keep_dims")),
    "REVERSE_SEQUENCE": ("IReverseSequenceLayer", ("batch_axis", "sequence_axis")),
    "ROTARY_EMBEDDING": ("IRotaryEmbeddingLayer", ("interleaved", "rotary_embedding_dim")),
    "SCATTER": ("IScatterLayer", ("axis", "mode")),
    "SHUFFLE": ("IShuffleLayer", ("first_transpose", "reshape_dims", "second_transpose", "zero_is_placeholder")),
    "SLICE": ("ISliceLayer", ("start", "shape", "stride", "axes", "mode")),
    "SOFTMAX": ("ISoftMaxLayer", ("axes",)),
    "TOPK": ("ITopKLayer", ("op", "k", "axes", "indices_type")),
    "TRIP_LIMIT": ("ITripLimitLayer", ("loop", "kind")),
    "UNARY": ("IUnaryLayer", ("op",)),
}
ATTENTION_ATTRIBUTES = ("norm_op", "causal_kind", "decomposable", "query_form", "key_value_form")
BIT_MASKS = {"REDUCE", "SOFTMAX", "TOPK", "NORMALIZATION"}  # the types whose `axes` is a bit mask


def type_name(layer: Any) -> str:
    """The `LayerType` of a layer whose class is still plain `ILayer`."""
    return str(layer.type.name)


def read_attributes(layer: Any, kind: str, trt: ModuleType) -> dict[str, Any]:
    """The attributes of one layer as plain data. Opens the layer: its class is its own afterwards.

    Args:
        layer: as `network.get_layer` returns it.
        kind: its `type_name`, read before.
    """
    if kind == "ATTENTION_INPUT":
        layer.__class__ = trt.IAttentionInputLayer
        return {name: _plain(getattr(layer.attention, name), trt) for name in ATTENTION_ATTRIBUTES}
    if kind not in LAYER_CLASSES:
        return {}
    class_name, names = LAYER_CLASSES[kind]
    layer.__class__ = getattr(trt, class_name)
    attributes = {name: _plain(getattr(layer, name), trt) for name in names}
    if kind in BIT_MASKS:
        attributes["axes"] = [axis for axis in range(8) if attributes["axes"] >> axis & 1]
    if kind == "SHUFFLE":
        attributes["first_transpose"] = _transpose(attributes["first_transpose"], layer.get_input(0))
        attributes["second_transpose"] = _transpose(attributes["second_transpose"], layer.get_output(0))
    return attributes


def _transpose(permutation: list[int], tensor: Any) -> list[int] | None:
    used = permutation[: len(tensor.shape)]
    return None if used == list(range(len(used))) else used


def _plain(value: Any, trt: ModuleType) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, trt.DataType):
        return FROM_TENSORRT[value.name]
    if isinstance(value, trt.Dims | trt.Permutation):
        return list(value)
    if isinstance(value, trt.ILoop | trt.IIfConditional) or hasattr(type(value), "__members__"):
        return str(value.name)
    return [_plain(element, trt) for element in value]
