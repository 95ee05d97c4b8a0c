"""One helper for all tests of `layers/`: define a network, run it with the reference executor, compare with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trtllm_port.layers import Module, Network
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.reference import ReferenceExecutor

Function = Callable[..., Any]


def define(
    function: Function,
    inputs: tuple[torch.Tensor, ...],
    *,
    module: Module | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
    dynamic: tuple[int, ...] = (0, 1),
    dtype: str = "float32",
) -> Network:
    """The network of `function`, or of a module; the axes in `dynamic` have sizes known at run time only."""
    network = Network(dtype=dtype, max_seq_len=8, weights=weights or {})
    if module is not None:
        network.bind(module)
    tensors = [
        network.add_input(
            f"x{i}",
            str(value.dtype).removeprefix("torch."),
            tuple(-1 if axis in dynamic else size for axis, size in enumerate(value.shape)),
        )
        for i, value in enumerate(inputs)
    ]
    result = function(*tensors)
    for i, tensor in enumerate(result if isinstance(result, tuple | list) else (result,)):
        network.mark_output(tensor, f"y{i}")
    return network


def run(network: Network, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The network's outputs."""
    weights = {name: network.weights[name] for name in set(network.parameters.values())}
    executor = ReferenceExecutor(NetworkFile.from_network(network), weights)
    feeds = {f"x{i}": value.clone() for i, value in enumerate(inputs)}
    outputs = executor.run(feeds)
    return [outputs[f"y{i}"] for i in range(len(outputs))]


class Evaluator:
    """What tests ask for; see `define` for the keywords."""

    define = staticmethod(define)
    run = staticmethod(run)

    def __call__(self, function: Function, *inputs: torch.Tensor, **options: Any) -> Any:
        """The value of `function` of the inputs, computed by the network that it defines."""
        outputs = run(define(function, inputs, **options), *inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def module(self, module: Module, weights: Mapping[str, torch.Tensor], *inputs: torch.Tensor, **options: Any) -> Any:
        """The value of a module's forward."""
        return self(module, *inputs, module=module, weights=weights, **options)


@pytest.fixture(scope="session")
def evaluate() -> Evaluator:
    return Evaluator()


def compile_network(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Compile for compute capability 8.9, every input with one shape; returns TensorRT's complaints, [] for success."""
    trt = network.trt
    config = network.builder.create_builder_config()
    profile = network.builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    network.logger.drain()
    engine = network.builder.build_serialized_network(network.definition, config)
    complaints = [text for severity, text in network.logger.drain() if "Cuda" not in text]
    return [] if engine is not None else complaints or ["no engine, and no word why"]


@pytest.fixture(scope="session")
def compile_engine() -> Callable[[Network, Mapping[str, tuple[int, ...]]], list[str]]:
    return compile_network


@pytest.fixture(scope="session")
def llama(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    """The hand-written port in `llama.py` beside this file."""
    return import_file(Path(__file__).with_name("llama.py"))
