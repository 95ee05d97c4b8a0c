"""A parameter whose weight is quantized: its tensors in a checkpoint, and TensorRT's layers that dequantize it.

Shapes: the parameter's own, [..., N, K] or [..., K, N], where K features go in; n, k blocks along N and K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.definition.protocols import NetworkLike

Tensor: TypeAlias = Any  # of a network, whose module knows this one

#: What a quantized parameter's tensors are called: the parameter's name, an underscore, and one of these.
PARTS = ("scale", "global_scale", "zero_point", "permutation", "pre_scale", "activation_scale")
#: Kind of the codes → TensorRT's data type of them, and how many are in a byte.
CODES = {"int4": ("int4", 2), "int8": ("int8", 1), "fp8_e4m3": ("float8_e4m3fn", 1), "fp4_e2m1": ("float4_e2m1fn", 2)}
#: Data type that holds the codes of each kind in a checkpoint: of 4 bits two in a byte, the first in its low half.
STORED = {"int4": torch.uint8, "int8": torch.int8, "fp8_e4m3": torch.float8_e4m3fn, "fp4_e2m1": torch.uint8}
WIDE = "float32"
#: And the kind of the codes: what a module's rounded input is called, below the module, on Hugging Face's side, too.
ROUNDING = "rounding_to_"


@dataclass(frozen=True)
class WeightFormat:
    """How a parameter is quantized.

    Attributes:
        kind: of the codes: "int4", "int8", "fp8_e4m3" or "fp4_e2m1".
        inputs: the axis of the features that go in: -1, or -2 where the parameter is stored transposed.
        activation: kind of the codes of what goes in; None: it is not quantized.
    """

    kind: str
    inputs: int = -1
    activation: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in CODES or self.inputs not in (-1, -2) or self.activation not in (None, *CODES):
            raise ValueError(f"no weight is quantized to `{self.kind}` along axis {self.inputs}")


def part_name(parameter: str, part: str) -> str:
    """What one of a quantized parameter's tensors is called in a checkpoint."""
    return f"{parameter}_{part}"


def parts_of(parameter: str, names: Mapping[str, object]) -> dict[str, str]:
    """Part → name, of the tensors beside a quantized parameter's codes."""
    found = {part: part_name(parameter, part) for part in PARTS}
    return {part: name for part, name in found.items() if name in names}


def stored_codes(weight_format: WeightFormat, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Shape and data type in which a checkpoint holds the codes of a parameter of a shape."""
    _, in_a_byte = CODES[weight_format.kind]
    return (*shape[:-1], shape[-1] // in_a_byte), str(STORED[weight_format.kind]).removeprefix("torch.")


class QuantizedParameter:
    """One quantized parameter in a network.

    Args:
        network: which holds the tensors by their names in the checkpoint.
        name: of the parameter.
        weight_format: how it is quantized.
        shape: of the parameter, with ones in front so that it has the rank of what it is multiplied with.

    Attributes:
        inputs: the axis of the features that go in, from the end.
    """

    def __init__(self, network: NetworkLike, name: str, weight_format: WeightFormat, shape: tuple[int, ...]) -> None:
        self.network, self.name, self.shape = network, name, shape
        self.inputs = weight_format.inputs
        self._kind, self._activation = weight_format.kind, weight_format.activation
        self._parts = parts_of(name, network.weights)
        if "scale" not in self._parts:
            raise CheckpointError(f"no weights for `{part_name(name, 'scale')}`, though `{name}` is quantized")

    @property
    def is_plain(self) -> bool:
        """Whether the weight is codes times scales, and nothing happens to what it is multiplied with."""
        return not self._parts.keys() & {"zero_point", "permutation", "pre_scale", "activation_scale"}

    def tensor(self) -> Tensor:
        """The weight, as the unquantized model has it."""
        weight = self.product()
        offset = self.offset()
        if offset is not None:
            blocks = offset.shape[self.inputs]
            axis = len(self.shape) + self.inputs
            split = (*self.shape[:axis], blocks, self.shape[axis] // blocks, *self.shape[axis + 1 :])
            weight = (weight.view(*split) - offset.unsqueeze(axis + 1)).view(*self.shape)
        permutation = self._value("permutation")
        if permutation is not None:
            weight = self._columns(weight, torch.argsort(permutation))
        pre_scale = self.pre_scale()
        if pre_scale is not None:
            weight = weight * (pre_scale if self.inputs == -1 else pre_scale.unsqueeze(-1))
        return weight

    def product(self) -> Tensor:
        """Codes times scales."""
        network, trt, shape = self.network, self.network.trt, self.shape
        dtype, _ = CODES[self._kind]
        codes = network.checkpoint_constant(self.name, self._stored(self.name), dtype, shape)
        scale, block = self._scale()
        wide = self._kind == "fp4_e2m1" and scale.dtype == WIDE
        layer = network.definition.add_dequantize(
            codes.itensor, scale.itensor, network.trt_type(WIDE if wide else network.dtype)
        )
        if len(scale.shape) == 1:
            layer.axis = self._padded(self._parts["scale"]).index(scale.shape[0])
        elif scale.shape and self._kind != "int4":  # INT4 infers its one blocked axis from the scale's shape
            layer.block_shape = trt.Dims(block)
        weight = network.add("dequantize", layer)
        return weight.to(network.dtype) if wide else weight

    def offset(self) -> Tensor | None:
        """What the zero points take away from each block's elements, [..., n, k]; None: nothing."""
        if "zero_point" not in self._parts:
            return None
        zero, scale = (self._blocks(self._parts[part]) for part in ("zero_point", "scale"))
        return (zero * scale).to(self.network.dtype)

    def features(self, x: Tensor) -> Tensor:
        """What meets the codes of x [*, K]: times the pre-scale, in the order of the codes, rounded to codes itself."""
        pre_scale, permutation = self.pre_scale(), self._value("permutation")
        if pre_scale is not None:
            x = x * pre_scale
        if permutation is not None:
            x = self._gathered(x, self._parts["permutation"], x.ndim - 1)
        if self._activation is None or "activation_scale" not in self._parts:
            return x
        rounded = self._rounded(x, self._activation)
        self.network.tap(f"{self.name.rpartition('.')[0]}.{ROUNDING}{self._activation}", rounded)
        return rounded

    def _rounded(self, x: Tensor, kind: str) -> Tensor:
        """Quantized and dequantized, of which TensorRT makes a product of codes; products of one x share its codes."""
        name = self._parts["activation_scale"]
        scale, network, (dtype, _) = self._stored(name), self.network, CODES[kind]

        def make() -> Tensor:
            constant = network.checkpoint_constant(name, scale, WIDE, ())
            layer = network.definition.add_quantize(x.itensor, constant.itensor, network.trt_type(dtype))
            codes = network.add("quantize", layer)
            layer = network.definition.add_dequantize(codes.itensor, constant.itensor, network.trt_type(x.dtype))
            return network.add("dequantize", layer)

        return network.shared(("rounded", x.name, dtype, float(scale)), make)

    def pre_scale(self) -> Tensor | None:
        """[K]: what the features that go in are multiplied with; None: nothing."""
        if "pre_scale" not in self._parts:
            return None
        name = self._parts["pre_scale"]
        return self.network.checkpoint_constant(
            name, self._stored(name), self.network.dtype, (self.shape[self.inputs],)
        )

    def _scale(self) -> tuple[Tensor, tuple[int, ...]]:
        """The scale as the DEQUANTIZE layer takes it: one, a vector along an axis, or blocks; and the blocks' sizes."""
        name = self._parts["scale"]
        value, shape = self._stored(name), self._padded(name)
        block = tuple(size // count for size, count in zip(self.shape, shape, strict=True))
        several = [axis for axis, count in enumerate(shape) if count > 1]
        if not several and self._kind != "int4":
            shape = ()
        elif len(several) == 1 and block[several[0]] == 1 and self._kind in ("int8", "fp8_e4m3"):
            shape = (shape[several[0]],)
        dtype = str(value.dtype).removeprefix("torch.")
        scale = self.network.checkpoint_constant(name, value, dtype, shape)
        if "global_scale" not in self._parts:
            return scale, block
        name = self._parts["global_scale"]
        factor = self.network.checkpoint_constant(name, self._stored(name), WIDE, ())
        layer = self.network.definition.add_dequantize(scale.itensor, factor.itensor, self.network.trt_type(WIDE))
        return self.network.add("dequantize", layer), block

    def _blocks(self, name: str) -> Tensor:
        """A tensor of blocks, of the data type in which it is stored."""
        value = self._stored(name)
        dtype = str(value.dtype).removeprefix("torch.")
        return self.network.checkpoint_constant(name, value, dtype, self._padded(name))

    def _padded(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of blocks, with ones in front."""
        shape = tuple(self._stored(name).shape)
        shape = (1,) * (len(self.shape) - len(shape)) + shape
        if any(size % count for size, count in zip(self.shape, shape, strict=True)):
            raise CheckpointError(f"`{name}` has shape {shape}, which does not divide {self.shape} into blocks")
        return shape

    def _columns(self, weight: Tensor, order: torch.Tensor) -> Tensor:
        layer = self.network.definition.add_gather(
            weight.itensor, self.network.constant(order).itensor, len(self.shape) + self.inputs
        )
        return self.network.add("permute_columns", layer)

    def _gathered(self, x: Tensor, name: str, axis: int) -> Tensor:
        order = self.network.checkpoint_constant(name, self._stored(name), "int64", (self.shape[self.inputs],))
        return self.network.add("permute_features", self.network.definition.add_gather(x.itensor, order.itensor, axis))

    def _value(self, part: str) -> torch.Tensor | None:
        return self._stored(self._parts[part]) if part in self._parts else None

    def _stored(self, name: str) -> torch.Tensor:
        return self.network.weights[name]
