"""The reference executor: runs a TensorRT network with torch, layer by layer, without TensorRT.

In: a `NetworkFile` and its weights. Out: an `Executor`. The layers are put in order, compiled to steps, and run; a
newcomer makes a chain of steps faster in `fusion.py`, or teaches it a layer type in `evaluators`.
"""

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError, UnsupportedLayerError
from trtllm_port.runtime.reference.executor import ReferenceExecutor

__all__ = ["LayerExecutionError", "ReferenceExecutor", "UnsupportedLayerError"]
