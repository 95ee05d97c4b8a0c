"""A transformers model whose weights are in memory only while their layer runs.

Built with its parameters on the meta device; hooks fill them from the checkpoint before a module runs and take them
away afterwards. A unit is a module of a list of layers, or what holds parameters outside of such lists. A matrix that
is stored in another data type than the model computes in stays as it is, and is cast piece by piece as it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.exact_arithmetic import DTYPE
from trtllm_port.huggingface.loading import make_without_weights
from trtllm_port.verification.sides.mapped_weights import MappedCheckpoint

PIECE_BYTES = 16 << 20  # of a matrix that is cast as it is used: it stays in the cache until it is multiplied


class CastAsUsed(TorchFunctionMode):
    """While active, a parameter that is stored in another data type counts as one of `dtype`.

    Args:
        dtype: what the model computes in.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(self._is_stored(each) for each in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if func is F.linear:
            return self._linear(*args, **kwargs)
        if func is F.embedding:
            return func(*args, **kwargs).to(self.dtype)
        if func == DTYPE:
            return self.dtype
        name = getattr(func, "__name__", "")
        if name == "__set__":  # of `data`
            return func(*args, **kwargs)
        if name == "__get__":  # shape, device and so on; but `T` is a tensor
            value = func(*args, **kwargs)
            return value.to(self.dtype) if isinstance(value, Tensor) else value
        return func(*map(self._cast, args), **{key: self._cast(value) for key, value in kwargs.items()})

    def _is_stored(self, value: Any) -> bool:
        return type(value) is nn.Parameter and DTYPE(value) != self.dtype

    def _cast(self, value: Any) -> Any:
        return value.to(self.dtype) if self._is_stored(value) else value

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = input.new_empty(*input.shape[:-1], len(weight))
        step = max(1, PIECE_BYTES // (weight.shape[1] * self.dtype.itemsize))
        scratch = torch.empty(min(step, len(weight)), weight.shape[1], dtype=self.dtype)
        for start in range(0, len(weight), step):
            part = slice(start, start + step)
            piece = scratch[: len(weight[part])].copy_(weight[part])
            output[..., part] = F.linear(input, piece, None if bias is None else self._cast(bias)[part])
        return output


def streamed_model(
    model_dir: Path, dtype: torch.dtype, trust_remote_code: bool, checkpoint: MappedCheckpoint, *, hold: bool = False
) -> tuple[nn.Module, dict[str, str]]:
    """Build a model that reads its weights layer by layer; it runs under `CastAsUsed`.

    Args:
        model_dir: has the model's `config.json`.
        dtype: what it computes in.
        trust_remote_code: run Python code that comes with the model.
        checkpoint: its weights.
        hold: give the model all of them now, for good.

    Returns:
        The model, and parameter name → checkpoint name.

    Raises:
        UnsupportedModelError: the checkpoint's tensors are not the model's parameters, one by one.
    """
    config = whole_config(model_dir, trust_remote_code)
    with reading(model_dir, UnsupportedModelError, failed="is of a model that cannot be made"):
        model = make_without_weights(config, dtype, trust_remote_code=trust_remote_code)
    model.eval().requires_grad_(False)
    names = _checkpoint_names(model, checkpoint)
    for path, unit, recurse in _units(model):
        parameters = dict(unit.named_parameters(recurse=recurse, remove_duplicate=False))
        prefix = f"{path}." if path else ""
        weights = {name: names[prefix + name] for name in parameters}
        if hold:
            _fill(weights, checkpoint, dtype, unit, ())
            continue
        unit.register_forward_pre_hook(partial(_fill, weights, checkpoint, dtype))
        unit.register_forward_hook(partial(_empty, parameters, checkpoint))
    return model, names


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


def _fill(
    weights: Mapping[str, str], checkpoint: MappedCheckpoint, dtype: torch.dtype, unit: nn.Module, _args: Any
) -> None:
    for name, stored in weights.items():
        holder, _, attribute = name.rpartition(".")
        as_stored = attribute == "weight" and type(unit.get_submodule(holder)) in (nn.Linear, nn.Embedding)
        value = checkpoint.stored(stored) if as_stored else checkpoint.tensor(stored, dtype)
        _put(unit, name, nn.Parameter(value, requires_grad=False))


def _empty(
    parameters: Mapping[str, nn.Parameter], checkpoint: MappedCheckpoint, unit: nn.Module, _args: Any, _output: Any
) -> None:
    for name, parameter in parameters.items():
        _put(unit, name, parameter)
    checkpoint.release()


def _put(unit: nn.Module, name: str, parameter: nn.Parameter) -> None:
    holder, _, attribute = name.rpartition(".")
    unit.get_submodule(holder)._parameters[attribute] = parameter
