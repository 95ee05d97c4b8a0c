"""A transformers model whose weights are in memory only while their layer runs.

Built with its parameters on the meta device; hooks fill them from the memory-mapped checkpoint before a module runs and
take them away afterwards. A unit is a module of a list of layers, or what holds parameters outside of such lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.verification.mapped import MappedCheckpoint


def streamed_model(
    model_dir: Path, dtype: torch.dtype, trust_remote_code: bool, *, resident: bool = False
) -> tuple[nn.Module, dict[str, str]]:
    """Build a model that reads its weights layer by layer.

    Args:
        model_dir: a Hugging Face model with safetensors.
        dtype: of the weights when they are in memory.
        trust_remote_code: run Python code that comes with the model.
        resident: fill all layers at once and keep them.

    Returns:
        The model, and parameter name → checkpoint name.

    Raises:
        UnsupportedModelError: the checkpoint's tensors are not the model's parameters, one by one.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
    with _parameters_on_meta():
        model: nn.Module = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation="eager",
            experts_implementation="eager",
            trust_remote_code=trust_remote_code,
        )
    model.eval().requires_grad_(False)
    checkpoint = MappedCheckpoint(model_dir)
    names = _checkpoint_names(model, checkpoint)
    for path, unit, recurse in _units(model):
        weights = {name: names[name] for name in _parameters(path, unit, recurse)}
        if resident:
            _fill(path, weights, checkpoint, dtype, unit, ())
            continue
        unit.register_forward_pre_hook(partial(_fill, path, weights, checkpoint, dtype))
        unit.register_forward_hook(partial(_empty, path, weights, checkpoint))
    return model, names


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move every parameter to the meta device when a module takes it: memory that was not written yet costs nothing."""
    original = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # one that is tied stays the same object
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        original(module, name, parameter)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


def _checkpoint_names(model: nn.Module, checkpoint: MappedCheckpoint) -> dict[str, str]:
    """Parameter name → checkpoint name: the same, with or without the inner model's prefix, or that of a tied one."""
    stored = set(checkpoint.source.names())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names: dict[str, str] = {}
    tied: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found = next((n for n in (name, name.removeprefix(prefix), prefix + name) if n in stored), None)
        found = found or tied.get(id(parameter))
        if found is None or checkpoint.source.shape(found) != tuple(parameter.shape):
            raise UnsupportedModelError(
                f"`{name}` is no tensor of the checkpoint as it is, so the model cannot be read layer by layer"
            )
        names[name] = tied.setdefault(id(parameter), found)
    return names


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """(path, module, with all that is in it); together they hold every parameter once."""
    layers: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{layer}.") for layer in layers):
            continue
        if isinstance(model.get_submodule(path.rpartition(".")[0]), nn.ModuleList):
            layers.append(path)
            yield path, module, True
        elif next(module.parameters(recurse=False), None) is not None:
            yield path, module, False


def _parameters(path: str, unit: nn.Module, recurse: bool) -> list[str]:
    prefix = f"{path}." if path else ""
    return [prefix + name for name, _ in unit.named_parameters(recurse=recurse, remove_duplicate=False)]


def _fill(
    path: str,
    weights: Mapping[str, str],
    checkpoint: MappedCheckpoint,
    dtype: torch.dtype,
    unit: nn.Module,
    _args: Any,
) -> None:
    for name, stored in weights.items():
        _put(unit, name[len(path) + bool(path) :], checkpoint.tensor(stored, dtype))


def _empty(
    path: str, weights: Mapping[str, str], checkpoint: MappedCheckpoint, unit: nn.Module, _args: Any, _output: Any
) -> None:
    for name in weights:
        relative = name[len(path) + bool(path) :]
        _put(unit, relative, unit.get_parameter(relative).to("meta"))
    checkpoint.release()


def _put(unit: nn.Module, name: str, value: Tensor) -> None:
    holder, _, attribute = name.rpartition(".")
    unit.get_submodule(holder)._parameters[attribute] = nn.Parameter(value, requires_grad=False)
