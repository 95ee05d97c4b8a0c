"""The network file: a TensorRT network as data, read, executed and compared without TensorRT and without a GPU.

In: a `trt.INetworkDefinition`, or a file. Out: `NetworkFile`, and what anything that runs one has to offer. A newcomer
adds the attributes of one more type of layer.
"""

from trtllm_port.runtime.network.file import NetworkFile, parameter_values
from trtllm_port.runtime.network.schema import Constant, LayerRecord, TensorRecord

__all__ = ["Constant", "LayerRecord", "NetworkFile", "TensorRecord", "parameter_values"]
