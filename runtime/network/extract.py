"""From a TensorRT network definition to plain data."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from trtllm_port.errors import PortError
from trtllm_port.runtime.network.attributes import read_attributes, type_name
from trtllm_port.runtime.network.dtypes import FROM_TENSORRT
from trtllm_port.runtime.network.schema import Constant, LayerRecord, TensorRecord

if TYPE_CHECKING:
    import numpy as np


class Extraction:
    """Walks a network definition once and keeps what it finds.

    Args:
        definition: a `trt.INetworkDefinition`.
        trt: the TensorRT module that made it.
        constants: TensorRT tensor name → the torch tensor behind a CONSTANT layer. What is not here is read from the
            layer, which TensorRT's Python interface cannot do for bfloat16, float8 and 4-bit types.
        parameters: TensorRT tensor name → name in the checkpoint.
    """

    def __init__(
        self, definition: Any, trt: ModuleType, constants: Mapping[str, torch.Tensor], parameters: Mapping[str, str]
    ) -> None:
        self._trt = trt
        self._given = constants
        self._parameters = parameters
        self.tensors: dict[str, TensorRecord] = {}
        self.constants: dict[str, Constant] = {}
        self.inputs = tuple(self._tensor(definition.get_input(i)) for i in range(definition.num_inputs))
        self.layers = tuple(self._layer(definition.get_layer(i)) for i in range(definition.num_layers))
        self.outputs = tuple(self._tensor(definition.get_output(i)) for i in range(definition.num_outputs))

    def _tensor(self, tensor: Any) -> str:
        name = str(tensor.name)
        if name not in self.tensors:
            try:
                shape = tuple(tensor.shape)
            except RuntimeError as error:
                raise PortError(
                    f"TensorRT cannot infer the shape of the tensor {name!r}: the network is not valid",
                    hint="TensorRT's log says why",
                ) from error
            self.tensors[name] = TensorRecord(FROM_TENSORRT[tensor.dtype.name], shape)
        return name

    def _layer(self, layer: Any) -> LayerRecord:
        kind = type_name(layer)
        attributes = read_attributes(layer, kind, self._trt)
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        outputs = tuple(self._tensor(layer.get_output(i)) for i in range(layer.num_outputs))
        if kind == "CONSTANT":
            self.constants[outputs[0]] = self._constant(layer, outputs[0])
        names = tuple(None if tensor is None else str(tensor.name) for tensor in inputs)
        return LayerRecord(kind, str(layer.name), names, outputs, attributes)

    def _constant(self, layer: Any, name: str) -> Constant:
        shape = tuple(layer.shape)
        if name in self._parameters:
            return Constant(shape, parameter=self._parameters[name])
        if name in self._given:
            return Constant(shape, value=self._given[name].detach().reshape(shape))
        return Constant(shape, value=_from_numpy(layer.weights, layer.name).reshape(shape))


def _from_numpy(weights: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    if not hasattr(weights, "__array_interface__"):
        raise PortError(
            f"the value of the constant {name!r} cannot be read back from TensorRT ({weights.dtype})",
            hint="pass the tensor in `constants`, by the name of the constant's output",
        )
    return torch.from_numpy(weights.copy())
