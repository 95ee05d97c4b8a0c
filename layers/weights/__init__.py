"""From Hugging Face's weight files to a port's parameters: reading, mapping, accounting.

In: a directory's tensors, the shapes of a port's parameters, its weight map. Out: a plan that says which tensor fills
which parameter, or one error that lists all that does not fit; then the values. A newcomer adds a step that changes
tensors on their way in `steps.py`.
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
