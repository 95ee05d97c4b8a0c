"""The reference executor: runs a TensorRT network with torch, layer by layer, without TensorRT.

In: a `NetworkFile`, weights, inputs. Out: every tensor that is asked for by name. A newcomer adds a way to run layers
faster here; what one layer computes is in `evaluators`.
"""

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError, UnsupportedLayerError
from trtllm_port.runtime.reference.executor import ReferenceExecutor

__all__ = ["LayerExecutionError", "ReferenceExecutor", "UnsupportedLayerError"]
