"""`Network` and `Tensor`: the TensorRT network definition a port is traced into, and what it consists of.

The network travels with its tensors: there is no current network. A tensor is named by the innermost module that
returned it, else by its layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from trtllm_port.errors import CheckpointError, NetworkError
from trtllm_port.layers.definition.dtypes import dtype_name, torch_dtype, trt_dtype, trt_dtype_name
from trtllm_port.layers.definition.flavour import get_logger, load_flavour, no_garbage_collection
from trtllm_port.layers.definition.protocols import ParameterLike
from trtllm_port.layers.definition.quantized import QuantizedParameter, WeightFormat
from trtllm_port.layers.definition.scopes import Scopes
from trtllm_port.layers.definition.tensor_methods import OperandOf, Scalar, TensorMethods


class Tensor(TensorMethods):
    """A TensorRT tensor that knows its network, with torch's operators and methods.

    Attributes:
        itensor: the `trt.ITensor`.
        network: the `Network` it belongs to.
        shape: sizes, -1 where only known when the engine runs.
        dtype: "float32", "float16", "bfloat16", "int64", "int32" or "bool".
    """

    __slots__ = ("dtype", "itensor", "network", "shape")

    def __init__(self, itensor: Any, network: Network, shape: tuple[int, ...], dtype: str) -> None:
        self.itensor = itensor
        self.network = network
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        return str(self.itensor.name)

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    __hash__ = object.__hash__  # by identity, as torch's: `==` is elementwise

    def __bool__(self) -> bool:
        raise TypeError("the truth of a tensor is only known when the engine runs: use `where` or `op_and`, `op_or`")


Operand: TypeAlias = OperandOf[Tensor]


class Network(Scopes):
    """A strongly typed network that is being defined.

    Args:
        dtype: data type of parameters that do not name their own.
        max_seq_len: slots of the KV cache, which is one more than the greatest position.
        weights: checkpoint name → tensor. Tensors are not copied: their memory goes to TensorRT by address, and
            `constants` keeps it alive.
        formats: how some of the parameters are quantized, by name; see `QuantizedParameter` for their tensors.
        flavour: "tensorrt", "tensorrt_rtx" or "auto".
        attention_layers: whether TensorRT's attention layer may be used at all.

    Attributes:
        trt: the TensorRT module.
        builder, definition: the `trt.Builder` and the `trt.INetworkDefinition`.
        constants: name of a CONSTANT layer's output → the torch tensor behind it, of the layer's shape.
        parameters: the same names → checkpoint names, for constants that come from the checkpoint.
        taps: module path → name of its (first) output; "path:input" → name of its first tensor input;
            "path:input:chosen" and "path:input:weights" → the experts that it is told to use; "path:1" and
            so on → the further ones of a tuple that it returns. A module called more than once has "path#2" and so on
            for the later calls.
        factors: parameter → the axes of the features that go in, of each product that it is a factor of; None stands
            for any other use.
        loops: how many there are so far.
        channel_loops: some of them are linear recurrences channel by channel.
        attention_apart: there is attention on both sides of a loop.
        loops_before_attention: how many there were when the first attention layer was made; None without one.
    """

    def __init__(
        self,
        *,
        dtype: str,
        max_seq_len: int,
        weights: Mapping[str, torch.Tensor],
        formats: Mapping[str, WeightFormat] | None = None,
        flavour: str = "tensorrt_rtx",
        attention_layers: bool = True,
    ) -> None:
        super().__init__()
        torch_dtype(dtype)
        self.dtype = dtype
        self.max_seq_len = max_seq_len
        self.weights = weights
        self.formats = formats or {}
        self.trt: Any = load_flavour(flavour)
        self.flavour = str(self.trt.__name__)
        self.logger = get_logger(self.trt)
        with no_garbage_collection():
            self.builder = self.trt.Builder(self.logger)
        strongly_typed = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.definition = self.builder.create_network(strongly_typed)
        self.constants: dict[str, torch.Tensor] = {}
        self.parameters: dict[str, str] = {}
        self.taps: dict[str, str] = {}
        self.factors: dict[str, list[int | None]] = {}
        self.attention_layers = attention_layers
        self.loops = 0
        self.channel_loops = self.attention_apart = False
        self.loops_before_attention: int | None = None
        self._taps_of: dict[str, list[str]] = {}  # tensor name → its taps, so that renaming finds them
        self._given_names: set[str] = set()  # names that are not TensorRT's defaults
        self._parameter_tensors: dict[int, Tensor] = {}
        self._shared: dict[tuple[Any, ...], Tensor] = {}  # tensors made once: scalars, masks, slot numbers

    # inputs and outputs

    def add_input(self, name: str, dtype: str, shape: tuple[int, ...], axes: tuple[str, ...] = ()) -> Tensor:
        """A network input; -1 in `shape` is a size known at run time. Equal names in `axes` promise equal sizes."""
        if name in self._given_names:
            raise NetworkError(f"the network has a tensor `{name}` already")
        itensor = self.definition.add_input(name, trt_dtype(self.trt, dtype), shape)
        if itensor is None:
            raise self.refused(f"input `{name}` of shape {shape}")
        for position, axis in enumerate(axes):
            if axis:
                itensor.set_dimension_name(position, axis)
        self._given_names.add(name)
        return Tensor(itensor, self, shape, dtype)

    def mark_output(self, tensor: Tensor, name: str) -> None:
        """Make `tensor` the network output `name`; taps and constants that refer to the tensor follow.

        An input, or what is an output already, is copied: a tensor has one name.
        """
        if tensor.itensor.is_network_input or tensor.itensor.is_network_output:
            tensor = self.add("identity", self.definition.add_identity(tensor.itensor))
        self.rename(tensor, name)
        self.definition.mark_output(tensor.itensor)

    def rename(self, tensor: Tensor, name: str) -> None:
        """Name a tensor; NetworkError if another one has that name."""
        old = tensor.name
        if old == name:
            return
        if name in self._given_names:
            raise NetworkError(f"the network has a tensor `{name}` already")
        tensor.itensor.name = name
        self._given_names.discard(old)
        self._given_names.add(name)
        tables: tuple[dict[str, Any], ...] = (self.constants, self.parameters, self._taps_of)
        for table in tables:
            if old in table:
                table[name] = table.pop(old)
        for tap in self._taps_of.get(name, ()):
            self.taps[tap] = name

    # constants and parameters

    def constant(self, value: torch.Tensor, name: str | None = None) -> Tensor:
        """A constant of the network. The memory of a contiguous CPU tensor is used as it is.

        TensorRT has no bool constants: a bool tensor becomes an int32 constant and a cast.
        """
        if value.dtype == torch.bool:
            as_int = self.constant(value.to(torch.int32), name and f"{name}/int32")
            return self.add("cast", self.definition.add_cast(as_int.itensor, self.trt.bool))
        value = value.detach().cpu().contiguous()
        return self._constant(name, value, dtype_name(value.dtype), tuple(value.shape))

    def _constant(self, name: str | None, value: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
        weights = self.trt.Weights(self.trt_type(dtype), value.data_ptr(), math.prod(shape))
        tensor = self.add("constant", self.definition.add_constant(shape, weights))
        if name is not None and name not in self._given_names:
            self.rename(tensor, name)
        self.constants[tensor.name] = value
        return tensor

    def checkpoint_constant(self, name: str, value: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of the checkpoint as a constant of a shape; equal ones share one constant.

        Args:
            name: in the checkpoint.
            value: contiguous, on the CPU; codes of 4 bits are two in a byte.
            dtype: TensorRT's.
            shape: of the constant.
        """

        def make() -> Tensor:
            tensor = self._constant(name, value, dtype, shape)
            self.parameters[tensor.name] = name
            return tensor

        return self.shared(("checkpoint", name, shape), make)

    def trt_type(self, dtype: str) -> Any:
        """The `trt.DataType` of that name."""
        return trt_dtype(self.trt, dtype)

    def scalar(self, value: Scalar, dtype: str, ndim: int) -> Tensor:
        """A scalar as a constant of shape (1,) * ndim; equal ones share one constant."""
        if dtype in ("int32", "int64") and isinstance(value, float) and not value.is_integer():
            raise NetworkError(f"{self.where()}the scalar {value} beside an {dtype} tensor", hint="cast the tensor")
        shape = (1,) * ndim
        key = ("scalar", repr(value), dtype, ndim)  # by repr: -0.0 and 0.0 are equal as keys
        return self.shared(key, lambda: self.constant(torch.full(shape, value, dtype=torch_dtype(dtype))))

    def integers(self, values: tuple[int, ...]) -> Tensor:
        """A 1-D int64 constant: axes, sizes. Equal ones share one constant."""
        return self.shared(("integers", values), lambda: self.constant(torch.tensor(values, dtype=torch.int64)))

    def shared(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """The tensor made for `key`, made on first use and outside any module's name: several modules may use it."""
        if key not in self._shared:
            outer, self._scope = self._scope, [str(key[0])]
            try:
                self._shared[key] = make()
            finally:
                self._scope = outer
        return self._shared[key]

    def parameter(self, parameter: ParameterLike, ndim: int | None = None) -> Tensor:
        """A module's parameter as a tensor of this network, with ones in front up to `ndim` dimensions.

        Every use of a parameter, tied ones included, is a view of one constant.
        """
        self._note_use(parameter, None)
        return self._parameter(parameter, len(parameter.shape) if ndim is None else ndim)

    def factor(self, parameter: ParameterLike, inputs: int, ndim: int) -> Tensor:
        """As `parameter`, of a factor of a product over the axis `inputs`, -1 or -2."""
        self._note_use(parameter, inputs)
        return self._parameter(parameter, ndim)

    def _note_use(self, parameter: ParameterLike, inputs: int | None) -> None:
        name = self._parameter_names.get(id(parameter))
        if name is not None:
            self.factors.setdefault(name, []).append(inputs)

    def _parameter(self, parameter: ParameterLike, ndim: int) -> Tensor:
        shape = (1,) * (ndim - len(parameter.shape)) + parameter.shape
        known = self._parameter_tensors.get(id(parameter))
        if known is None:
            known = self._parameter_tensors[id(parameter)] = self._new_parameter(parameter, shape)
        return known if known.shape == shape else self._reshaped(known, shape)

    def _new_parameter(self, parameter: ParameterLike, shape: tuple[int, ...]) -> Tensor:
        name = self._parameter_names.get(id(parameter))
        if name is None:
            raise NetworkError(
                f"{self.where()}a parameter of shape {parameter.shape} belongs to no module of the port",
                hint="assign it to an attribute of a module in `__init__`",
            )
        return self._named_parameter(name, parameter, shape)

    def _named_parameter(self, name: str, parameter: ParameterLike, shape: tuple[int, ...]) -> Tensor:
        if name not in self.weights:
            raise CheckpointError(f"no weights for `{name}`", hint="load the port's weights before defining it")
        if name in self.formats:
            weight: Tensor = QuantizedParameter(self, name, self.formats[name], shape).tensor()
            return weight
        value = self.weights[name]
        dtype = parameter.dtype or self.dtype
        if tuple(value.shape) != parameter.shape or dtype_name(value.dtype) != dtype:
            raise CheckpointError(
                f"`{name}` is {dtype_name(value.dtype)} {tuple(value.shape)}, expected {dtype} {parameter.shape}"
            )
        tensor = self.constant(value.reshape(shape), name)
        self.parameters[tensor.name] = name
        return tensor

    def quantized(self, parameter: ParameterLike, ndim: int) -> QuantizedParameter | None:
        """A quantized parameter as a factor of a product with `ndim` dimensions; None where it is not quantized."""
        name = self._parameter_names.get(id(parameter))
        if name is None or name not in self.formats:
            return None
        shape = (1,) * (ndim - len(parameter.shape)) + parameter.shape
        return QuantizedParameter(self, name, self.formats[name], shape)

    def _reshaped(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        def make() -> Tensor:
            layer = self.definition.add_shuffle(tensor.itensor)
            layer.reshape_dims = self.trt.Dims(shape)
            return self.add(f"{tensor.name}/reshape", layer)

        return self.shared(("reshaped", tensor.name, shape), make)

    def operand(self, value: Operand, dtype: str, ndim: int) -> Tensor:
        """A tensor, parameter or scalar as a tensor of this network with `ndim` dimensions, ones added in front."""
        if isinstance(value, bool | int | float):
            return self.scalar(value, dtype, ndim)
        if not isinstance(value, Tensor):
            return self.parameter(value, ndim)
        if value.ndim >= ndim:
            return value
        axes = self.integers(tuple(range(ndim - value.ndim)))
        return self.add("broadcast", self.definition.add_unsqueeze(value.itensor, axes.itensor))

    # layers

    def add(self, operation: str, layer: Any) -> Tensor:
        """Name a new TensorRT layer and return its first output; NetworkError with TensorRT's words if it refused."""
        return self.add_outputs(operation, layer, 1)[0]

    def add_outputs(self, operation: str, layer: Any, count: int) -> tuple[Tensor, ...]:
        """As `add`, for a layer with several outputs."""
        if layer is None:
            raise self.refused(operation)
        layer.name = self._layer_name(operation)
        return tuple(self._output(operation, layer.get_output(i)) for i in range(count))

    def _output(self, operation: str, itensor: Any) -> Tensor:
        try:
            shape = tuple(itensor.shape)
        except (RuntimeError, ValueError) as error:  # ValueError: TensorRT's way to say "no shape" is a negative rank
            raise self.refused(operation) from error
        return Tensor(itensor, self, shape, trt_dtype_name(self.trt, itensor.dtype))

    def refused(self, what: str) -> NetworkError:
        """The error that says which operation TensorRT refused, where, and why."""
        reasons = [text for severity, text in self.logger.drain() if "Cuda Runtime" not in text]
        return NetworkError(f"{self.where()}TensorRT refuses `{what}`: {'; '.join(reasons) or 'it gives no reason'}")

    # taps

    def tap(self, name: str, tensor: Tensor) -> None:
        """Let `name` stand for `tensor`, whatever the tensor will be called; a module's first call counts."""
        if name in self.taps:
            return
        self.taps[name] = tensor.name
        self._taps_of.setdefault(tensor.name, []).append(name)

    def name_output(self, name: str, tensor: Tensor) -> None:
        """Name a module's output after the module unless an inner module, an input or an output has named it."""
        if tensor.name not in self._given_names and name not in self._given_names:
            self.rename(tensor, name)


class Sketch(Network):
    """A network without weights, whose parameters are inputs: it shows how a port uses them."""

    def _named_parameter(self, name: str, parameter: ParameterLike, shape: tuple[int, ...]) -> Tensor:
        return self.add_input(name, parameter.dtype or self.dtype, shape)
