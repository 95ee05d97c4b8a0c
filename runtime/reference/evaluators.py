"""The table of evaluators: TensorRT's layer type → the function that turns such a layer into a torch call."""

from __future__ import annotations

from collections.abc import Callable

from trtllm_port.runtime.reference import attention, indexing, matmul, pointwise, reduction, shaping, slicing
from trtllm_port.runtime.reference.layer import Bound, Evaluator, Layer

EVALUATORS: dict[str, Callable[[Layer], Evaluator | Bound]] = {
    "ACTIVATION": pointwise.activation,
    "ATTENTION_INPUT": attention.attention_input,
    "ATTENTION_OUTPUT": attention.attention_output,
    "CAST": pointwise.cast,
    "CONCATENATION": shaping.concatenation,
    "EINSUM": matmul.einsum,
    "ELEMENTWISE": pointwise.elementwise,
    "GATHER": indexing.gather,
    "IDENTITY": pointwise.identity,
    "KV_CACHE_UPDATE": attention.kv_cache_update,
    "MATRIX_MULTIPLY": matmul.matrix_multiply,
    "REDUCE": reduction.reduce,
    "ROTARY_EMBEDDING": attention.rotary_embedding,
    "SELECT": pointwise.select,
    "SHAPE": shaping.shape,
    "SHUFFLE": shaping.shuffle,
    "SLICE": slicing.slice_layer,
    "SOFTMAX": reduction.softmax,
    "SQUEEZE": shaping.squeeze,
    "UNARY": pointwise.unary,
    "UNSQUEEZE": shaping.unsqueeze,
}
IMPURE = {"KV_CACHE_UPDATE"}  # never folded: they change what they are given
