"""Tensors that `from_pretrained` loses where a model's own code does not know that it has to make them again.

transformers 5 makes a model on the meta device, where nothing has content, and gives it the weights of the files. What
no file holds (tables of rotations, masks) it leaves uninitialised, unless the class's `_init_weights` makes it anew. It
calls that for a module with such tensors, where a class that writes into `parameter.data` overwrites what was loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def replace_lost_tensors(model: nn.Module, fresh: nn.Module) -> None:
    """Give a model the buffers that no file holds, and tensors that are plain attributes, as its class makes them.

    Args:
        model: loaded; changed in place.
        fresh: another model of the same config, made without files; its parameters may be without memory.
    """
    stored = model.state_dict().keys()
    others = dict(fresh.named_modules())
    for path, module in model.named_modules():
        other = others.get(path)
        if other is None:
            continue
        for name, made in other._buffers.items():
            own = module._buffers.get(name)
            if made is not None and own is not None and (f"{path}.{name}" if path else name) not in stored:
                module._buffers[name] = made.to(own.device if not own.is_meta else made.device)
        for name, held in vars(other).items():
            if _holds_tensors(held):
                vars(module)[name] = held


def shared_with_loaded(model: nn.Module, missing: Collection[str]) -> set[str]:
    """Names that no file holds, of parameters that a file holds under another name: a class tied them by itself."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    loaded = {id(parameter) for name, parameter in parameters.items() if name not in missing}
    return {name for name in missing if name in parameters and id(parameters[name]) in loaded}


def sparing(initialise: Callable[..., None]) -> Callable[..., None]:
    """transformers' method that has a class initialise a module, with what is loaded kept from a class of its own."""

    @functools.wraps(initialise)
    def run(self: Any, module: nn.Module, is_custom_code: bool = False) -> None:
        with _out_of_reach(module if is_custom_code else None):
            initialise(self, module, is_custom_code)

    return run


@contextmanager
def _out_of_reach(module: nn.Module | None) -> Iterator[None]:
    """While it lasts, the parameters of a module and its parts that are loaded are replaced by some without content."""
    loaded = [
        (part, name, parameter)
        for part in (() if module is None else module.modules())
        for name, parameter in part._parameters.items()
        if parameter is not None and getattr(parameter, "_is_hf_initialized", False)
    ]
    try:
        for part, name, parameter in loaded:
            part._parameters[name] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        yield
    finally:
        for part, name, parameter in loaded:
            part._parameters[name] = parameter


def _holds_tensors(held: object) -> bool:
    """Whether an attribute is a tensor, or some of them, outside the meta device."""
    if isinstance(held, list | tuple):
        return bool(held) and all(map(_holds_tensors, held))
    return isinstance(held, Tensor) and not isinstance(held, nn.Parameter) and not held.is_meta
