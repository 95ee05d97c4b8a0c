"""What the compiler made of quantized weights: how wide they are in the engine, and what multiplies them.

An engine can only be inspected where it can run. But when it is compiled with detailed profiling, the compiler lists
what the inspector would say in one verbose message: name, kind, data types and constants of every layer of the engine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trtllm_port.errors import EngineError
from trtllm_port.layers.definition.flavour import LAYERS, WEIGHTS
from trtllm_port.runtime.network import NetworkFile
from trtllm_port.runtime.network.executor import TensorSpec

#: Data type of codes → the compiler's name of it, and the least compute capability that has it.
#: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
NARROW: dict[str, tuple[str, tuple[int, int]]] = {
    "int8": ("Int8", (7, 5)),
    "int4": ("Int4", (8, 0)),
    "float8_e4m3fn": ("FP8", (8, 9)),
    "float4_e2m1fn": ("FP4E2M1", (12, 0)),
}
WHOLE, IN_KERNEL, BEFORE = (
    "multiplied as it is",
    "dequantized in the kernel that multiplies it",
    "dequantized by a kernel of its own at every step",
)
JOINED = "joined with others that have the same input"
_LAYER = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: .*?, Constants: \[(.*?)\], Outputs: ", re.M)
_CONSTANT = re.compile(r"Name: ([^,{}]*), Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")


@dataclass(frozen=True, kw_only=True)
class QuantizedLayers:
    """Quantized weights of one kind and size, and what became of them.

    Args:
        dtype: of their codes.
        shape: of one.
        weights: how many.
        kept: whether the engine has as many elements of that type as they have.
        how: what becomes of them, each once; nothing where the engine has none of that size.
    """

    dtype: str
    shape: tuple[int, ...]
    weights: int
    kept: bool
    how: tuple[str, ...]


@dataclass(frozen=True)
class _EngineConstant:
    name: str
    dims: tuple[int, ...]  # sorted, without ones: the compiler transposes
    dtype: str
    how: str


def quantized_weights(network: NetworkFile) -> list[TensorSpec]:
    """The network's quantized weights."""
    layers = [layer for layer in network.layers if layer.type == "DEQUANTIZE"]
    scales = {layer.inputs[1] for layer in layers}
    codes = {layer.inputs[0] for layer in layers if layer.outputs[0] not in scales}
    return [
        TensorSpec(constant.parameter, network.tensors[name].dtype, constant.shape)
        for name, constant in network.constants.items()
        if name in codes and constant.parameter is not None
    ]


def refuse_lacking(network: NetworkFile, capabilities: Sequence[str]) -> None:
    """Refuse GPUs that do not have a data type of the network.

    Raises:
        EngineError: names the GPUs, the type and a weight.
    """
    for weight in quantized_weights(network):
        lacking = without_type(weight.dtype, capabilities)
        if lacking:
            raise EngineError(
                f"`{weight.name}` is {weight.dtype}, which compute capability {', '.join(lacking)} does not have",
                hint=f"leave {', '.join(lacking)} out of `--compute-capability`, or convert with `--dequantize`",
            )


def without_type(dtype: str, capabilities: Iterable[str]) -> list[str]:
    """The compute capabilities that do not have a data type."""
    least = NARROW[dtype][1]
    return [each for each in capabilities if tuple(map(int, each.split("."))) < least]


def weights_bytes(messages: Sequence[str]) -> int | None:
    """Bytes of the engine's weights, as the compiler said; None where it did not."""
    found = [text for text in messages if text.startswith(WEIGHTS)]
    number = re.search(r"\d+", found[-1]) if found else None
    return None if number is None else int(number[0])


def report_quantized(network: NetworkFile, messages: Sequence[str]) -> tuple[QuantizedLayers, ...]:
    """What became of the network's quantized weights, those of one kind and size together.

    Args:
        network: which was compiled.
        messages: what the compiler said that begins with `LAYERS`.
    """
    constants = [each for text in messages if text.startswith(LAYERS) for each in _constants(text)]
    sizes = ((each.dtype, tuple(size for size in each.shape if size > 1)) for each in quantized_weights(network))
    weights = Counter(sizes)
    elements = Counter[str]()
    for (dtype, shape), count in weights.items():
        elements[dtype] += count * math.prod(shape)
    reports = []
    for (dtype, shape), count in sorted(weights.items()):
        named = NARROW[dtype][0]
        held = {each.name: math.prod(each.dims) for each in constants if each.dtype == named}
        alike = [each for each in constants if each.dtype == named and each.dims == tuple(sorted(shape))]
        kept = sum(held.values()) >= elements[dtype]
        how = tuple(sorted({each.how for each in alike})) or ((JOINED,) if kept else ())
        reports.append(QuantizedLayers(dtype=dtype, shape=shape, weights=count, kept=kept, how=how))
    return tuple(reports)


def _constants(text: str) -> Iterable[_EngineConstant]:
    for name, kind, constants in _LAYER.findall(text):
        how = WHOLE if kind == "gemm" else IN_KERNEL if "Fc" in name else BEFORE
        for constant, dims, dtype in _CONSTANT.findall(constants):
            sizes = sorted(size for size in map(int, dims.split(",")) if size > 1) if dims else []
            yield _EngineConstant(constant, tuple(sizes), dtype, how)
