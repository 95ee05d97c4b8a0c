"""All low-level functions under one name: those of `layers/operations`, and those that know caches and positions.

In: `Tensor`, and for attention and recurrences a `KVCache` or a `State`. Out: `Tensor`. Each function finds the network
in its operands and adds layers to it. A newcomer adds here a function that needs to know where a token is in its text.
"""

from trtllm_port.layers.functional.attention import (
    attention,
    causal_mask,
    chunked_causal_mask,
    gather_tokens,
    needs_decomposition,
    only_chosen,
    rotary_embedding,
    slot_distances,
)
from trtllm_port.layers.functional.positions import (
    alibi_bias,
    alibi_slopes,
    rotary_cosines,
    rotary_sines,
    sinusoidal_positions,
)
from trtllm_port.layers.functional.recurrence import (
    linear_attention,
    linear_recurrence,
    selective_scan,
    weighted_average,
)
from trtllm_port.layers.operations.activation import (
    elu,
    gelu,
    gelu_tanh,
    leaky_relu,
    log_sigmoid,
    quick_gelu,
    relu,
    relu_squared,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from trtllm_port.layers.operations.collective import all_gather, all_reduce
from trtllm_port.layers.operations.creation import arange, bfloat16, constant, full, full_like, parts_like
from trtllm_port.layers.operations.elementwise import (
    add,
    clip,
    div,
    eq,
    floordiv,
    ge,
    gt,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    op_and,
    op_not,
    op_or,
    op_xor,
    pow,
    remainder,
    sub,
    where,
)
from trtllm_port.layers.operations.experts import combine_experts
from trtllm_port.layers.operations.indexing import embedding, gather, gather_nd, index_select, one_hot, scatter
from trtllm_port.layers.operations.normalization import layer_norm, rms_norm, softmax
from trtllm_port.layers.operations.product import einsum, linear, matmul, outer
from trtllm_port.layers.operations.reduction import (
    argmax,
    cumsum,
    logsumexp,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    topk,
    vector_norm,
)
from trtllm_port.layers.operations.scan import scan
from trtllm_port.layers.operations.shaping import (
    concat,
    expand,
    flatten,
    permute,
    repeat,
    repeat_interleave,
    reshape,
    shape,
    squeeze,
    stack,
    transpose,
    unsqueeze,
    view,
)
from trtllm_port.layers.operations.slicing import chunk, select, slice, slice_index, split, unbind
from trtllm_port.layers.operations.unary import (
    abs,
    cast,
    ceil,
    cos,
    erf,
    exp,
    expm1,
    floor,
    log,
    log1p,
    neg,
    reciprocal,
    round,
    rsqrt,
    sin,
    sqrt,
)

__all__ = [
    "abs", "add", "alibi_bias", "alibi_slopes", "all_gather", "all_reduce", "arange", "argmax", "attention",
    "bfloat16", "cast", "causal_mask", "ceil", "chunk", "chunked_causal_mask", "clip", "combine_experts", "concat",
    "constant", "cos", "cumsum", "div", "einsum", "elu", "embedding", "eq", "erf", "exp", "expand", "expm1",
    "flatten", "floor", "floordiv", "full", "full_like", "gather", "gather_nd", "gather_tokens", "ge", "gelu",
    "gelu_tanh", "gt", "index_select", "layer_norm", "le", "leaky_relu", "linear", "linear_attention",
    "linear_recurrence", "log", "log1p", "log_sigmoid", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logsumexp", "lt", "matmul", "max", "maximum", "mean", "min", "minimum", "mul", "ne", "needs_decomposition",
    "neg", "one_hot", "only_chosen", "op_and", "op_not", "op_or", "op_xor", "outer", "parts_like", "permute", "pow",
    "prod", "quick_gelu", "reciprocal", "relu", "relu_squared", "remainder", "repeat", "repeat_interleave",
    "reshape", "rms_norm", "rotary_cosines", "rotary_embedding", "rotary_sines", "round", "rsqrt", "scan", "scatter",
    "select", "selective_scan",
    "shape", "sigmoid", "silu", "sin", "sinusoidal_positions", "slice", "slice_index", "slot_distances", "softmax",
    "softplus", "split", "sqrt", "squeeze", "stack", "std", "sub", "sum", "tanh", "topk", "transpose", "unbind",
    "unsqueeze", "vector_norm", "view", "weighted_average", "where",
]  # fmt: skip
