"""The network file: a TensorRT network as data, read, executed and compared without TensorRT and without a GPU.

In: a `trt.INetworkDefinition`, or a file. Out: a `NetworkFile`, and the base of every `Executor` of one. A newcomer
who meets a new layer type lists in `attributes.py` what is to be read of it.
"""

from trtllm_port.runtime.network.file import NetworkFile, parameter_values
from trtllm_port.runtime.network.schema import Constant, LayerRecord, TensorRecord

__all__ = ["Constant", "LayerRecord", "NetworkFile", "TensorRecord", "parameter_values"]
