"""Tensors that `from_pretrained` loses where a model's own code does not know that it has to make them again.

transformers 5 makes a model on the meta device, where nothing has content, and gives it the weights of the files. What
no file holds (tables of rotations, masks) it leaves uninitialised, unless the class's `_init_weights` makes it anew.
"""

from __future__ import annotations

from collections.abc import Collection

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


def _holds_tensors(held: object) -> bool:
    """Whether an attribute is a tensor, or some of them, outside the meta device."""
    if isinstance(held, list | tuple):
        return bool(held) and all(map(_holds_tensors, held))
    return isinstance(held, Tensor) and not isinstance(held, nn.Parameter) and not held.is_meta
