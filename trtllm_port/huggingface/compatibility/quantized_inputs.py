"""What goes into some modules of a model, rounded to codes as it is where the model runs quantized.

transformers computes with quantized inputs for some formats only, and each in a way of its own. A directory may say in
`quantized_inputs.json` which modules' inputs are rounded: of a model that was written with the weights that quantized
ones stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.layers.definition.quantized import ROUNDING

FILE = "quantized_inputs.json"
FLOAT8_LIMIT = 448.0


class Codes(NamedTuple):
    """Codes of a kind ("fp8_e4m3", "int8"), all with one scale."""

    kind: str
    scale: float


def write_inputs(directory: Path, inputs: Mapping[str, Codes]) -> None:
    """Say which modules' inputs are rounded."""
    (directory / FILE).write_text(json.dumps({name: list(codes) for name, codes in inputs.items()}))


def round_inputs(model: nn.Module, directory: Path) -> None:
    """Make modules of a model round what goes into them, as the directory says; nothing if it does not.

    Raises:
        CheckpointError: the file is damaged, or names a module that the model does not have.
    """
    path = directory / FILE
    if not path.is_file():
        return
    content = read_json(path, CheckpointError)
    with reading(path, CheckpointError, failed="is damaged"):
        inputs = {name: Codes(str(kind), float(scale)) for name, (kind, scale) in content.items()}
    modules = dict(model.named_modules())
    prefix = getattr(model, "base_model_prefix", "")
    for name, codes in inputs.items():
        module = modules.get(name) or modules.get(f"{prefix}.{name}")
        if module is None:
            raise CheckpointError(f"`{path}` names `{name}`, and the model has no such module")
        rounding = RoundInput(codes)
        module.add_module(ROUNDING + codes.kind, rounding)
        module.forward = _rounding_first(module.forward, rounding)


def _rounding_first(forward: Callable[..., Any], rounding: RoundInput) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: forward(rounding(x), *args, **kwargs)


class RoundInput(nn.Module):
    """A module's input as its codes stand for it; a module of its own, so that it can be looked at."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, x: Tensor) -> Tensor:
        """Round it."""
        return rounded(x, self.codes)


def rounded(x: Tensor, codes: Codes) -> Tensor:
    """A tensor as its codes stand for it: to nearest even, saturating, in float32 unless the tensor is float64."""
    wide = x if x.dtype == torch.float64 else x.float()
    scale = torch.tensor(codes.scale, dtype=torch.float32, device=x.device)
    steps = wide / scale
    if codes.kind == "fp8_e4m3":
        steps = steps.clamp(-FLOAT8_LIMIT, FLOAT8_LIMIT).to(torch.float8_e4m3fn).to(wide.dtype)
    elif codes.kind == "int8":
        steps = steps.round().clamp(-128, 127)
    else:
        raise CheckpointError(f"inputs cannot be rounded to `{codes.kind}`")
    return (steps * scale).to(x.dtype)
