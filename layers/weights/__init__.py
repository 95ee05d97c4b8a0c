"""From Hugging Face's weight files to a port's parameters: reading, mapping, accounting."""

from trtllm_port.layers.weights.plan import ParameterSpec, WeightEntry, WeightPlan, plan_weights
from trtllm_port.layers.weights.source import HuggingFaceWeights, MappingWeights, SafetensorsFile, TensorSource
from trtllm_port.layers.weights.weight_map import Drop, Transform, WeightMap

__all__ = [
    "Drop",
    "HuggingFaceWeights",
    "MappingWeights",
    "ParameterSpec",
    "SafetensorsFile",
    "TensorSource",
    "Transform",
    "WeightEntry",
    "WeightMap",
    "WeightPlan",
    "plan_weights",
]
