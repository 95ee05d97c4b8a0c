"""From Hugging Face's weight files to a port's parameters: reading, mapping, accounting.

In: safetensors files, a `WeightMap`. Out: a plan in which every tensor has its place. A newcomer adds a step that turns
stored tensors into parameters.
"""

from trtllm_port.layers.weights.plan import ParameterSpec, WeightEntry, WeightPlan, plan_weights
from trtllm_port.layers.weights.source import HuggingFaceWeights, MappingWeights, SafetensorsFile, TensorSource
from trtllm_port.layers.weights.steps import Chunk, Concat, Stack, Step, Transpose
from trtllm_port.layers.weights.weight_map import Drop, Search, Transform, WeightMap, making

__all__ = [
    "Chunk",
    "Concat",
    "Drop",
    "HuggingFaceWeights",
    "MappingWeights",
    "ParameterSpec",
    "SafetensorsFile",
    "Search",
    "Stack",
    "Step",
    "TensorSource",
    "Transform",
    "Transpose",
    "WeightEntry",
    "WeightMap",
    "WeightPlan",
    "making",
    "plan_weights",
]
