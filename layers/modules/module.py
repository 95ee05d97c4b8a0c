"""`Module`, `ModuleList`, `DecoderLayerList`: torch.nn's shape, for modules that define a network."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Network, Tensor
from trtllm_port.layers.definition.parameter import Parameter


class Module:
    """A part of a port: `__init__` makes sub-modules and parameters, `forward` adds layers to its arguments' network.

    Calling a module records a tap under its path, and the names of its layers and of its output.

    Attributes:
        computed_elsewhere: of HF's modules that this one does without, the port's module whose output they are part of:
            `{"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"}`, side by side along the last dimension
            in this order; or None where they are no part of any output. Names are relative to this module.
    """

    computed_elsewhere: ClassVar[Mapping[str, str | None]] = {}
    _modules: dict[str, Module]
    _parameters: dict[str, Parameter]

    def __init__(self) -> None:
        self.__dict__["_modules"] = {}
        self.__dict__["_parameters"] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module | Parameter) and "_modules" not in self.__dict__:
            raise NetworkError(f"`{type(self).__name__}.{name}` is set before `super().__init__()`")
        tables: tuple[tuple[type, dict[str, Any]], ...] = (
            (Module, self.__dict__.get("_modules", {})),
            (Parameter, self.__dict__.get("_parameters", {})),
        )
        for kind, table in tables:
            if isinstance(value, kind):
                table[name] = value
            else:
                table.pop(name, None)  # what the attribute was before
        object.__setattr__(self, name, value)

    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` under this module's name."""
        inputs = (*args, *kwargs.values())
        network = _network_of(inputs)
        if network is None:
            raise NetworkError(f"`{type(self).__name__}` is called without a tensor")
        tap = network.enter(self)
        try:
            output = self.forward(*args, **kwargs)
        finally:
            network.leave()
        if tap:
            _record(network, tap, inputs, output)
        return output

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._modules.items()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) for this module and all below it; the path of the first is `prefix`."""
        yield prefix, self
        for name, module in self._modules.items():
            yield from module.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(full name, parameter); a parameter with several names comes once, under the first, unless told otherwise."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if remove_duplicate and id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                yield (f"{path}.{name}" if path else name), parameter


def _network_of(inputs: tuple[Any, ...]) -> Network | None:
    for value in inputs:
        network = getattr(value, "network", None)
        if isinstance(network, Network):
            return network
        if isinstance(value, tuple | list):
            nested = _network_of(tuple(value))
            if nested is not None:
                return nested
    return None


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list):
        return next((tensor for item in value if (tensor := _first_tensor(item)) is not None), None)
    return None


def _record(network: Network, tap: str, inputs: tuple[Any, ...], output: Any) -> None:
    first_input, first_output = _first_tensor(inputs), _first_tensor(output)
    if first_output is not None:
        network.name_output(tap, first_output)
        network.tap(tap, first_output)
    if isinstance(output, tuple):
        for index, value in enumerate(output[1:], 1):
            if isinstance(value, Tensor):
                network.tap(f"{tap}:{index}", value)
    if first_input is not None:
        network.tap(f"{tap}:input", first_input)
    for name, tensor in _choice_given(inputs).items():
        network.tap(f"{tap}:input:{name}", tensor)


def _choice_given(inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """The experts that a module is told to use, integers [T, A], and their weights of the same shape."""
    tensors = [value for value in inputs if isinstance(value, Tensor)][1:]
    chosen = [tensor for tensor in tensors if tensor.dtype in ("int32", "int64") and len(tensor.shape) > 1]
    if len(chosen) != 1:
        return {}
    weights = [tensor for tensor in tensors if tensor.shape == chosen[0].shape and "float" in tensor.dtype]
    return {"chosen": chosen[0], "weights": weights[0]} if len(weights) == 1 else {}


class ModuleList(Module):
    """Modules named "0", "1", …"""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        setattr(self, str(len(self._modules)), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int) -> Any:
        return list(self._modules.values())[index]


class ModuleDict(Module):
    """Modules by name, `self.rotary_emb["full_attention"]`."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def items(self) -> ItemsView[str, Module]:
        return self._modules.items()


class DecoderLayerList(ModuleList):
    """`layer_class(config, layer_idx)` for every layer.

    Args:
        layer_class: called with the config and the layer's index.
        config: the port's config.
        num_layers: None: `config.num_hidden_layers`.
    """

    def __init__(self, layer_class: Callable[[Any, int], Module], config: Any, num_layers: int | None = None) -> None:
        count = config.num_hidden_layers if num_layers is None else num_layers
        super().__init__(layer_class(config, index) for index in range(count))


def share_weights(layers: ModuleList, name: str, count: int) -> None:
    """Give the blocks called `name` of some layers the weights of the first `count` of them, in turn.

    Args:
        layers: those without such a block are passed over.
        name: of the block in a layer.
        count: how many blocks have weights of their own.
    """
    blocks = [vars(layer)[name] for layer in layers if name in vars(layer)]
    for place, block in enumerate(blocks[count:]):
        modules = dict(block.named_modules())
        for path, parameter in blocks[place % count].named_parameters():
            holder, _, own = path.rpartition(".")
            setattr(modules[holder], own, parameter)
