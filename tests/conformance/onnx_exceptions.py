"""The cases of decoder layer types that cannot match, each with a reason that a test proves.

Two kinds. In the first, NVIDIA's parser leaves out or misreads a part of the ONNX node, so that the TensorRT network
computes something else than the case expects. The proof takes the part away (or spells it out) and parses again. In the
second the network itself is one that TensorRT's own compiler rejects, or draws random numbers; the executor refuses it
by the layer's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, helper
from onnx.backend.test.case.test_case import TestCase


@dataclass(frozen=True)
class Ignored:
    """The parser makes the same network without these attributes or inputs of the node."""

    names: tuple[str, ...]

    @property
    def reason(self) -> str:
        """For the report."""
        return f"the parser ignores {' and '.join(f'`{name}`' for name in self.names)} of the ONNX node"


@dataclass(frozen=True)
class WrongDefault:
    """The parser makes another network, which matches, when the attribute's ONNX default is spelled out."""

    name: str
    default: int

    @property
    def reason(self) -> str:
        """For the report."""
        return f"the parser takes an absent `{self.name}` for another value than ONNX's default, {self.default}"


MISTRANSLATED: dict[str, Ignored | WrongDefault] = {
    "test_attention_4d_causal_nonpad_batch_prefill": Ignored(("nonpad_kv_seqlen",)),
    "test_attention_4d_causal_nonpad_continued_prefill": Ignored(("nonpad_kv_seqlen",)),
    "test_attention_4d_causal_nonpad_negative_offset_structural_empty": Ignored(("nonpad_kv_seqlen",)),
    "test_attention_4d_gqa_causal_nonpad_decode": Ignored(("nonpad_kv_seqlen",)),
    "test_attention_4d_gqa_causal_nonpad_decode_fp16": Ignored(("nonpad_kv_seqlen",)),
    "test_attention_bidirectional_window": Ignored(("left_window_size", "right_window_size")),
    "test_attention_local_window": Ignored(("left_window_size",)),
    "test_gru_batchwise": Ignored(("layout",)),
    "test_lstm_batchwise": Ignored(("layout",)),
    "test_simple_rnn_batchwise": Ignored(("layout",)),
    "test_spacetodepth_crd_mode_example": Ignored(("mode",)),
    "test_triu": WrongDefault("upper", 1),
    "test_triu_neg": WrongDefault("upper", 1),
    "test_triu_one_row": WrongDefault("upper", 1),
    "test_triu_out_neg_out": WrongDefault("upper", 1),
    "test_triu_out_pos": WrongDefault("upper", 1),
    "test_triu_pos": WrongDefault("upper", 1),
    "test_triu_square": WrongDefault("upper", 1),
    "test_triu_square_neg": WrongDefault("upper", 1),
}

_NARROW = "TensorRT's compiler rejects a cast to this type"
_ZERO_POINT = "TensorRT's compiler rejects a zero point that is a network input; here it is of uint8 besides"
REJECTED_BY_TENSORRT: dict[str, str] = {
    "test_cast_FLOAT16_to_FLOAT4E2M1": _NARROW,
    "test_cast_FLOAT16_to_FLOAT8E4M3FN": _NARROW,
    "test_cast_FLOAT16_to_INT4": _NARROW,
    "test_cast_FLOAT_to_FLOAT4E2M1": _NARROW,
    "test_cast_FLOAT_to_FLOAT8E4M3FN": _NARROW,
    "test_cast_FLOAT_to_INT4": _NARROW,
    "test_cast_no_saturate_FLOAT16_to_FLOAT8E4M3FN": _NARROW,
    "test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FN": _NARROW,
    "test_castlike_FLOAT16_to_FLOAT4E2M1": _NARROW,
    "test_castlike_FLOAT16_to_FLOAT4E2M1_expanded": _NARROW,
    "test_castlike_FLOAT16_to_FLOAT8E4M3FN": _NARROW,
    "test_castlike_FLOAT16_to_FLOAT8E4M3FN_expanded": _NARROW,
    "test_castlike_FLOAT16_to_INT4": _NARROW,
    "test_castlike_FLOAT16_to_INT4_expanded": _NARROW,
    "test_castlike_FLOAT_to_FLOAT4E2M1": _NARROW,
    "test_castlike_FLOAT_to_FLOAT4E2M1_expanded": _NARROW,
    "test_castlike_FLOAT_to_FLOAT8E4M3FN": _NARROW,
    "test_castlike_FLOAT_to_FLOAT8E4M3FN_expanded": _NARROW,
    "test_castlike_FLOAT_to_INT4": _NARROW,
    "test_castlike_FLOAT_to_INT4_expanded": _NARROW,
    "test_castlike_no_saturate_FLOAT16_to_FLOAT8E4M3FN": _NARROW,
    "test_castlike_no_saturate_FLOAT16_to_FLOAT8E4M3FN_expanded": _NARROW,
    "test_castlike_no_saturate_FLOAT_to_FLOAT8E4M3FN": _NARROW,
    "test_castlike_no_saturate_FLOAT_to_FLOAT8E4M3FN_expanded": _NARROW,
    "test_quantizelinear": _ZERO_POINT,
    "test_quantizelinear_axis": _ZERO_POINT,
    "test_quantizelinear_blocked_asymmetric": _ZERO_POINT,
}

_RANDOM = "draws random numbers, and TensorRT does not document its generator"
RANDOM: dict[str, str] = {"test_bernoulli_double_expanded": _RANDOM, "test_bernoulli_seed_expanded": _RANDOM}


def named_exceptions() -> dict[str, str]:
    """Case → reason, of every exception."""
    return {name: entry.reason for name, entry in MISTRANSLATED.items()} | REJECTED_BY_TENSORRT | RANDOM


def without(case: TestCase, names: tuple[str, ...]) -> ModelProto:
    """The case's model with attributes or inputs of its only node taken away."""
    model = ModelProto.FromString(case.model.SerializeToString())
    (node,) = model.graph.node
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    inputs = ["" if name in names else name for name in node.input]
    met = {attribute.name for attribute in node.attribute} | set(node.input)
    if not met >= set(names):
        raise ValueError(f"{case.name} has no {set(names) - met}")
    while inputs and not inputs[-1]:
        inputs.pop()
    del node.attribute[:], node.input[:]
    node.attribute.extend(kept)
    node.input.extend(inputs)
    used = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(used)
    return model


def spelled_out(case: TestCase, name: str, value: int) -> ModelProto:
    """The model of a case with an absent attribute of its only node written down."""
    model = ModelProto.FromString(case.model.SerializeToString())
    (node,) = model.graph.node
    if any(attribute.name == name for attribute in node.attribute):
        raise ValueError(f"{case.name} has {name} already")
    node.attribute.append(helper.make_attribute(name, value))
    return model
