"""Networks written with TensorRT's own Python interface, so that nothing of `layers/` takes part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch

from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.reference import ReferenceExecutor

DTYPES = {
    torch.float32: trt.float32,
    torch.float16: trt.float16,
    torch.bfloat16: trt.bfloat16,
    torch.int64: trt.int64,
    torch.int32: trt.int32,
    torch.int8: trt.int8,
    torch.bool: trt.bool,
}


class Net:
    """A network under construction: `net.definition` is TensorRT's, the rest saves typing."""

    logger = trt.Logger(trt.Logger.ERROR)

    def __init__(self) -> None:
        self.builder = trt.Builder(self.logger)
        self.definition = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.values: dict[str, torch.Tensor] = {}
        self.feeds: dict[str, torch.Tensor] = {}

    def input(self, value: torch.Tensor, *, dynamic: tuple[int, ...] = ()) -> Any:
        """An input that will be fed with `value`; the axes in `dynamic` have sizes known at run time only."""
        shape = tuple(-1 if axis in dynamic else size for axis, size in enumerate(value.shape))
        tensor = self.definition.add_input(f"x{len(self.feeds)}", DTYPES[value.dtype], shape)
        self.feeds[tensor.name] = value
        return tensor

    def constant(self, value: torch.Tensor) -> Any:
        """A constant."""
        value = value.contiguous()
        weights = trt.Weights(DTYPES[value.dtype], value.data_ptr(), value.numel())
        tensor = self.definition.add_constant(tuple(value.shape), weights).get_output(0)
        self.values[tensor.name] = value
        return tensor

    def file(self, *outputs: Any) -> NetworkFile:
        """The network as data, with these outputs, named y0, y1 and so on."""
        for index, tensor in enumerate(outputs):
            tensor.name = f"y{index}"
            self.definition.mark_output(tensor)
        return NetworkFile.from_definition(self.definition, trt, constants=self.values)

    def run(self, *outputs: Any) -> list[torch.Tensor]:
        """The values of these outputs, every tensor on the way checked against TensorRT's inference."""
        file = self.file(*outputs)
        results = ReferenceExecutor(file, {}, check=True).run(self.feeds)
        return [results[name] for name in file.outputs]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture(scope="session")
def new_net() -> Callable[[], Net]:
    """For tests that need a fresh network for every example."""
    return Net
