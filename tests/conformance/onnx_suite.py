"""The ONNX node tests as TensorRT networks, executed by the reference executor.

The inputs, the expected outputs and the tolerances are ONNX's; the networks are made by NVIDIA's ONNX parser. Nothing
of this package takes part in either.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from trtllm_port.errors import PortError
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.network.dtypes import STORAGE
from trtllm_port.runtime.reference import ReferenceExecutor, UnsupportedLayerError
from trtllm_port.runtime.reference.arrangement import BOUNDARY
from trtllm_port.runtime.reference.evaluators import EVALUATORS

with warnings.catch_warnings():  # some cases compute expected outputs with overflows, on purpose
    warnings.simplefilter("ignore")
    import tensorrt_rtx as trt
    from onnx import ModelProto, TensorProto, numpy_helper
    from onnx.backend.test.case import node
    from onnx.backend.test.case.test_case import TestCase


# What a decoder can need: the layer types that must match.
DECODER_TYPES = frozenset(EVALUATORS) - {"NON_ZERO", "REVERSE_SEQUENCE"} | {"CONSTANT", *BOUNDARY}


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        status: "matched", "refused", "wrong", "failed" (an error that is no refusal) or "not parsed".
    """

    case: str
    status: str
    layer_types: frozenset[str] = frozenset()
    detail: str = ""


class _Quiet(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, message: str) -> None:
        """Drop the message: what cannot be parsed is counted, not shown."""


@cache
def all_cases() -> tuple[TestCase, ...]:
    """Every ONNX node test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(node.collect_testcases(None))


def cases_of(module: str) -> list[TestCase]:
    """The cases of one of ONNX's modules, most of which are named after an operator; quick, where all take seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = f"{node.__name__}.{module}"
        importlib.import_module(path)
    names = {name for name, source in node._existing_names.items() if source.op_type.lower() == module}
    return [case for case in node._NodeTestCases if case.name in names]


@cache
def _builder() -> tuple[Any, Any]:
    logger = _Quiet()
    return trt.Builder(logger), logger


def define(model: ModelProto) -> Any:
    """The strongly typed `trt.INetworkDefinition` of a model; None if NVIDIA's parser does not support it."""
    builder, logger = _builder()
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    return definition if parser.parse(model.SerializeToString()) else None


def parse(model: ModelProto) -> NetworkFile | None:
    """The network of a model as data; None if NVIDIA's parser does not support it."""
    definition = define(model)
    return None if definition is None else NetworkFile.from_definition(definition, trt)


def compiles(model: ModelProto) -> bool:
    """Whether TensorRT's compiler takes the network of a model, for compute capability 8.9."""
    builder, _ = _builder()
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return builder.build_serialized_network(define(model), config) is not None


def to_torch(data: Any) -> torch.Tensor:
    """ONNX data as TensorRT holds it: without float64, which the parser reads as float32; 4-bit elements one each."""
    array = numpy_helper.to_array(data) if isinstance(data, TensorProto) else np.asarray(data)
    name = array.dtype.name
    if name == "float64":
        return torch.from_numpy(array.astype(np.float32))
    if name in ("int4", "float4_e2m1fn"):
        return torch.from_numpy(array.astype(np.float32)).to(STORAGE[name])
    if name in ("bfloat16", "float8_e4m3fn"):
        return torch.from_numpy(array.view(f"uint{8 * array.dtype.itemsize}").copy()).view(STORAGE[name])
    return torch.from_numpy(array.copy())


def feed(case: TestCase, network: NetworkFile, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
    """The network's inputs. The parser keeps their order, and their names except where a loop's body renames them."""
    tensors = {value.name: to_torch(data) for value, data in zip(case.model.graph.input, inputs, strict=True)}
    if set(network.inputs) <= tensors.keys():
        return {name: tensors[name] for name in network.inputs}
    return dict(zip(network.inputs, tensors.values(), strict=True))


def run(case: TestCase) -> Outcome:
    """Execute one case and compare every output with ONNX's."""
    network = parse(case.model)
    if network is None:
        return Outcome(case.name, "not parsed")
    types = frozenset(layer.type for layer in network.layers)
    try:
        executor = ReferenceExecutor(network, {}, check=True)
        for inputs, expected in case.data_sets:
            results = executor.run(feed(case, network, inputs))
            for value, data in zip(case.model.graph.output, expected, strict=True):
                difference = compare(results[value.name], to_torch(data), case.rtol, case.atol)
                if difference:
                    return Outcome(case.name, "wrong", types, f"{value.name}: {difference}")
    except UnsupportedLayerError as error:
        return Outcome(case.name, "refused", types, error.message)
    except PortError as error:
        return Outcome(case.name, "failed", types, error.message)
    return Outcome(case.name, "matched", types)


def compare(actual: torch.Tensor, expected: torch.Tensor, rtol: float, atol: float) -> str:
    """How two tensors differ beyond the tolerance, "" if they do not: dtype, shape, then values.

    ONNX's own tolerance, and in float16 and bfloat16 at least two units in the last place.
    """
    if actual.dtype != expected.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    if actual.dtype in (torch.float16, torch.bfloat16):
        rtol = max(rtol, 2 * torch.finfo(actual.dtype).eps)
    close = torch.isclose(actual.double(), expected.double(), rtol=rtol, atol=atol, equal_nan=True)
    if not actual.is_floating_point():
        close = actual == expected
    if bool(close.all()):
        return ""
    worst = (actual.double() - expected.double()).abs().max()
    return f"{int((~close).sum())} of {close.numel()} elements differ, by up to {worst:.3g}"


def outcomes() -> Iterator[Outcome]:
    """Run everything."""
    for case in all_cases():
        yield run(case)
