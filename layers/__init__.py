"""What a port is written in: functions, layers, and the base classes of configs and models."""

from trtllm_port.layers import functional
from trtllm_port.layers.activation import ACT2FN, Activation
from trtllm_port.layers.attention import Attention
from trtllm_port.layers.cache import KVCache
from trtllm_port.layers.config import Every, PretrainedConfig
from trtllm_port.layers.convolution import CausalConv1d, TokenShift
from trtllm_port.layers.embedding import Embedding
from trtllm_port.layers.functional import *  # noqa: F403  every function, as listed there
from trtllm_port.layers.linear import ColumnLinear, Conv1D, Linear, RowLinear
from trtllm_port.layers.mapping import Mapping
from trtllm_port.layers.mlp import MLP, GatedMLP
from trtllm_port.layers.model import DecoderModelForCausalLM, PretrainedModel
from trtllm_port.layers.module import DecoderLayerList, Module, ModuleDict, ModuleList, share_weights
from trtllm_port.layers.moe import MOE, Experts, TopKRouter
from trtllm_port.layers.network import Network
from trtllm_port.layers.normalization import LayerNorm, RmsNorm
from trtllm_port.layers.parameter import Parameter
from trtllm_port.layers.quantiles import normal_quantile
from trtllm_port.layers.rotary import RotaryEmbedding
from trtllm_port.layers.states import State
from trtllm_port.layers.tensor import Tensor
from trtllm_port.layers.weights import (
    Chunk,
    Concat,
    Drop,
    HuggingFaceWeights,
    Search,
    Stack,
    Transform,
    Transpose,
    WeightMap,
    plan_weights,
)

__all__ = [
    "ACT2FN",
    "MLP",
    "MOE",
    "Activation",
    "Attention",
    "CausalConv1d",
    "Chunk",
    "ColumnLinear",
    "Concat",
    "Conv1D",
    "DecoderLayerList",
    "DecoderModelForCausalLM",
    "Drop",
    "Embedding",
    "Every",
    "Experts",
    "GatedMLP",
    "HuggingFaceWeights",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Mapping",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Network",
    "Parameter",
    "PretrainedConfig",
    "PretrainedModel",
    "RmsNorm",
    "RotaryEmbedding",
    "RowLinear",
    "Search",
    "Stack",
    "State",
    "Tensor",
    "TokenShift",
    "TopKRouter",
    "Transform",
    "Transpose",
    "WeightMap",
    "normal_quantile",
    "plan_weights",
    "share_weights",
]
__all__ += functional.__all__
