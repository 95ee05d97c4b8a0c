"""The table of evaluators: TensorRT's layer type → the function that turns such a layer into a torch call.

In: a layer with its attributes. Out: a function of its inputs' values, or a refusal of what it would not compute
exactly. A newcomer adds a layer type: its function in the file of its family, its line in the table.
"""

from __future__ import annotations

from collections.abc import Callable

from trtllm_port.runtime.reference.evaluators import (
    attention,
    filling,
    indexing,
    matmul,
    normalization,
    pointwise,
    quantization,
    reduction,
    shaping,
    slicing,
)
from trtllm_port.runtime.reference.evaluators.layer import Bound, Evaluator, Layer

EVALUATORS: dict[str, Callable[[Layer], Evaluator | Bound]] = {
    "ACTIVATION": pointwise.activation,
    "ATTENTION_INPUT": attention.attention_input,
    "ATTENTION_OUTPUT": attention.attention_output,
    "CAST": pointwise.cast,
    "CONCATENATION": shaping.concatenation,
    "CUMULATIVE": reduction.cumulative,
    "DEQUANTIZE": quantization.dequantize,
    "EINSUM": matmul.einsum,
    "ELEMENTWISE": pointwise.elementwise,
    "FILL": filling.fill,
    "GATHER": indexing.gather,
    "IDENTITY": pointwise.identity,
    "KV_CACHE_UPDATE": attention.kv_cache_update,
    "MATRIX_MULTIPLY": matmul.matrix_multiply,
    "NON_ZERO": indexing.non_zero,
    "NORMALIZATION": normalization.normalization,
    "ONE_HOT": indexing.one_hot,
    "QUANTIZE": quantization.quantize,
    "REDUCE": reduction.reduce,
    "REVERSE_SEQUENCE": indexing.reverse_sequence,
    "ROTARY_EMBEDDING": attention.rotary_embedding,
    "SCATTER": indexing.scatter,
    "SELECT": pointwise.select,
    "SHAPE": shaping.shape,
    "SHUFFLE": shaping.shuffle,
    "SLICE": slicing.slice_layer,
    "SOFTMAX": reduction.softmax,
    "SQUEEZE": shaping.squeeze,
    "TOPK": reduction.topk,
    "UNARY": pointwise.unary,
    "UNSQUEEZE": shaping.unsqueeze,
}
