"""The network file: a TensorRT network as data, read, executed and compared without TensorRT and without a GPU."""

from trtllm_port.runtime.network_file.file import NetworkFile, parameter_values
from trtllm_port.runtime.network_file.schema import Constant, LayerRecord, TensorRecord

__all__ = ["Constant", "LayerRecord", "NetworkFile", "TensorRecord", "parameter_values"]
