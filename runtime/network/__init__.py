"""The network file: a TensorRT network as data, read, executed and compared without TensorRT and without a GPU."""

from trtllm_port.runtime.network.file import NetworkFile, parameter_values
from trtllm_port.runtime.network.schema import Constant, LayerRecord, TensorRecord

__all__ = ["Constant", "LayerRecord", "NetworkFile", "TensorRecord", "parameter_values"]
