"""What a port is written in: functions, layers, and the base classes of configs and models.

In: a Hugging Face directory's config and weights. Out: the `Network` of a port. Ports import from here alone, so a
newcomer who adds a layer in one of the rooms below lists it here, too; functions are listed in `functional`.
"""

from trtllm_port.layers import functional
from trtllm_port.layers.config.built_in import Every, OneOf
from trtllm_port.layers.config.pretrained import PretrainedConfig
from trtllm_port.layers.config.quantiles import normal_quantile
from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Network, Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.functional import *  # noqa: F403  every function, as listed there
from trtllm_port.layers.functional.cache import KVCache
from trtllm_port.layers.functional.states import State
from trtllm_port.layers.modules.activation import ACT2FN, Activation
from trtllm_port.layers.modules.attention import Attention
from trtllm_port.layers.modules.convolution import CausalConv1d, TokenShift
from trtllm_port.layers.modules.embedding import Embedding
from trtllm_port.layers.modules.linear import ColumnLinear, Conv1D, Linear, RowLinear
from trtllm_port.layers.modules.mlp import MLP, GatedMLP
from trtllm_port.layers.modules.model import DecoderModelForCausalLM, PretrainedModel
from trtllm_port.layers.modules.module import DecoderLayerList, Module, ModuleDict, ModuleList, share_weights
from trtllm_port.layers.modules.moe import MOE, Experts, TopKRouter
from trtllm_port.layers.modules.normalization import LayerNorm, RmsNorm
from trtllm_port.layers.modules.rotary import RotaryEmbedding
from trtllm_port.layers.operations.methods import attach_methods
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

attach_methods()

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
    "OneOf",
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
