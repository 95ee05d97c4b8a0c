"""The reference executor: runs a TensorRT network with torch, layer by layer, without TensorRT."""

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError, UnsupportedLayerError
from trtllm_port.runtime.reference.executor import ReferenceExecutor

__all__ = ["LayerExecutionError", "ReferenceExecutor", "UnsupportedLayerError"]
