"""Taps of a torch model: hooks that hand out what goes into its modules and what comes out, and can replace it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trtllm_port.huggingface.module_outputs import choice_given, of_tokens
from trtllm_port.verification.taps.names import further_output, input_of
from trtllm_port.verification.taps.runner import OnTap

PASSING = (nn.Dropout, nn.Identity)  # give back what they are given
# Where a module is called by keywords, its first tensor is not the first that happens to be passed.
INPUT_KEYWORDS = ("hidden_states", "input_ids", "inputs_embeds", "x", "input")


@contextmanager
def tapped(model: nn.Module, on_tap: OnTap | None, taps: Collection[str] | None) -> Iterator[None]:
    """Hand every module's tensors to `on_tap`; a module's first call counts.

    Those that compute nothing are left out: a port has no such modules, and Hugging Face's attention weights, held fast
    in a dropout, would take the rounding of scores from its own error alone.

    Args:
        model: whose sub-modules are tapped.
        on_tap: what it returns takes the tensor's place.
        taps: None: all.
    """
    if on_tap is None:
        yield
        return
    seen: set[str] = set()

    def hand_out(tap: str, tensor: Tensor) -> Tensor | None:
        if tap in seen or (taps is not None and tap not in taps):
            return None
        seen.add(tap)
        return on_tap(tap, tensor)

    modules = ((path, module) for path, module in model.named_modules() if path and not isinstance(module, PASSING))
    handles = [handle for path, module in modules for handle in _tap(path, module, hand_out)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tap(path: str, module: nn.Module, hand_out: OnTap) -> list[RemovableHandle]:
    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        names = _inputs(path, args, given)
        others = {key: other for tap, key in names.items() if (other := hand_out(tap, given[key])) is not None}
        if not others:
            return None
        given |= others
        return tuple(given[index] for index in range(len(args))), {name: given[name] for name in kwargs}

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor) and output.is_complex():  # two real tensors in a port, as rotary tables are
            parts = after(module, args, (output.real.contiguous(), output.imag.contiguous()))
            return None if parts is None else torch.complex(*parts)
        others: dict[Any, Tensor] = {}
        shown = of_tokens(module, args, output)
        for key, tap in _outputs(path, shown).items():
            other = hand_out(tap, shown if key is None else shown[key])
            if other is not None:
                others[key] = other if shown is output else torch.cat([other, output[..., other.shape[-1] :]], -1)
        return _replaced(output, others) if others else None

    return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]


def _inputs(path: str, args: tuple[Any, ...], given: Mapping[Any, Any]) -> dict[str, Any]:
    """The taps of what a module is given, and where it is among its arguments."""
    keys = [*range(len(args)), *INPUT_KEYWORDS]
    first = next((key for key in keys if isinstance(given.get(key), Tensor)), None)
    names = {} if first is None else {input_of(path): first}
    return names | {path + suffix: key for suffix, key in choice_given(given).items()}


def inputs_of(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a module is given, by tap."""
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    return {tap: given[key] for tap, key in _inputs(path, args, given).items()}


def outputs_of(path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> dict[str, Tensor]:
    """Return what a module gives, by tap."""
    if isinstance(output, Tensor) and output.is_complex():
        output = (output.real, output.imag)
    shown = of_tokens(module, args, output)
    return {tap: shown if key is None else shown[key] for key, tap in _outputs(path, shown).items()}


def _outputs(path: str, output: Any) -> dict[Any, str]:
    """Where the tensors of a module's output are, and what their taps are called.

    What is larger than the first is a by-product, such as the attention weights of every pair of tokens.
    """
    if isinstance(output, Tensor):
        return {None: path}
    keys: list[Any]  # of a mapping, or positions
    if isinstance(output, Mapping):
        keys = [key for key, value in output.items() if isinstance(value, Tensor)][:1]
    elif isinstance(output, tuple | list):
        sizes = {index: value.numel() for index, value in enumerate(output) if isinstance(value, Tensor)}
        keys = [index for index, size in sizes.items() if size <= next(iter(sizes.values()))]
    else:
        return {}
    return {key: further_output(path, key) if place else path for place, key in enumerate(keys)}


def _replaced(output: Any, others: dict[Any, Tensor]) -> Any:
    if None in others:
        return others[None]
    if isinstance(output, Mapping):
        for key, other in others.items():
            output[key] = other  # type: ignore[index]  # transformers' outputs can be written
        return output
    values = [others.get(index, value) for index, value in enumerate(output)]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
