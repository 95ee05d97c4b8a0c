"""Whether attention gets a fused kernel: asked of the compiler, one layer at a time.

`IAttention.decomposable = False` makes a build fail where there is no fused kernel. So a network of one attention
layer, built for one compute capability, answers the question for a head size and a data type (a tenth of a second each,
no GPU).

Shape suffixes: B batch, L tokens, N query heads, K key/value heads, S slots, H head size.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trtllm_port.layers.definition.dtypes import trt_dtype
from trtllm_port.layers.definition.flavour import get_logger, no_garbage_collection
from trtllm_port.runtime.engines.signals import held_signals

if TYPE_CHECKING:
    from trtllm_port.runtime.network import NetworkFile

__all__ = ["AttentionShape", "attention_shapes", "fused_attention", "set_capabilities"]

_SLOTS = 64
"""Of the cache that the question is asked with; the answers are the same for 16 and for 4096."""


@dataclass(frozen=True, order=True)
class AttentionShape:
    """What decides about a fused kernel.

    Args:
        query_heads, key_value_heads, head_size: N, K, H.
        dtype: "float16" and so on.
        decomposable: whether the network lets TensorRT use several kernels.
    """

    query_heads: int
    key_value_heads: int
    head_size: int
    dtype: str
    decomposable: bool

    def __str__(self) -> str:
        return f"{self.dtype}, {self.query_heads}/{self.key_value_heads} heads of {self.head_size}"


def attention_shapes(network: NetworkFile) -> Counter[AttentionShape]:
    """The attention layers of a network: their shapes, and how many have each."""
    shapes: Counter[AttentionShape] = Counter()
    for layer in network.layers:
        if layer.type == "ATTENTION_INPUT":
            query_BNLH, key_BKSH = (network.tensors[str(name)] for name in layer.inputs[:2])
            shapes[
                AttentionShape(
                    query_BNLH.shape[1],
                    key_BKSH.shape[1],
                    query_BNLH.shape[3],
                    query_BNLH.dtype,
                    bool(layer.attributes["decomposable"]),
                )
            ] += 1
    return shapes


def fused_attention(trt: ModuleType, shape: AttentionShape, capabilities: Sequence[str]) -> dict[str, bool]:
    """Per compute capability, whether the compiler has a fused kernel for this shape under an explicit boolean mask.

    Asked with the two profiles of an engine: for one new token the compiler wants more heads than for a prompt.

    Args:
        trt: `tensorrt_rtx`, or `tensorrt`, which knows only the GPU that is here.
        shape: of the layer.
        capabilities: of the GPUs.
    """
    return {capability: _builds(trt, shape, capability) for capability in capabilities}


def set_capabilities(trt: ModuleType, config: Any, capabilities: Sequence[str]) -> None:
    """Compile for these GPUs instead of the one that is here; `tensorrt` cannot, and is left alone."""
    if trt.__name__ != "tensorrt_rtx":
        return
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + capability.replace(".", "")), index)


def _builds(trt: ModuleType, shape: AttentionShape, capability: str) -> bool:
    logger = get_logger(trt)
    with no_garbage_collection():
        builder = trt.Builder(logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    dtype, size = trt_dtype(trt, shape.dtype), shape.head_size
    query_BNLH = definition.add_input("query", dtype, (-1, shape.query_heads, -1, size))
    key_BKSH, value_BKSH = (
        definition.add_input(name, dtype, (-1, shape.key_value_heads, _SLOTS, size)) for name in ("key", "value")
    )
    mask_B1LS = definition.add_input("mask", trt.bool, (-1, 1, -1, _SLOTS))
    attention = definition.add_attention_v2(
        query_BNLH, key_BKSH, value_BKSH, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
    )
    attention.mask = mask_B1LS
    attention.decomposable = False
    definition.mark_output(attention.get_output(0))
    for longest in (1, _SLOTS):  # decode, context: as `add_profiles` has them
        profile = builder.create_optimization_profile()
        for tensor in (query_BNLH, key_BKSH, value_BKSH, mask_B1LS):
            least, most = (
                tuple(
                    given if given >= 0 else free
                    for given, free in zip(tensor.shape, (batch, 1, length, 1), strict=True)
                )
                for batch, length in ((1, 1), (2, longest))
            )
            profile.set_shape(tensor.name, least, most, most)
        config.add_optimization_profile(profile)
    set_capabilities(trt, config, (capability,))
    with _quiet(), held_signals():
        built = builder.build_serialized_network(definition, config) is not None
    logger.drain()  # a refusal is an answer here, no message
    return built


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorRT's compiler writes its refusals to file descriptor 2 itself, beside the logger."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
