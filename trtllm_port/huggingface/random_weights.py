"""Seeded random weights that hide nothing: gains that are not one, biases that are not zero, activations of unit size.

A freshly initialised model has norm gains of one and biases of zero, and its weights are so small that attention is
nearly uniform: most porting mistakes change nothing that anyone would notice. `condition` draws

    norm gains   initial value + 0.3 N      biases   0.3 N      weights   N / sqrt(fan in)      embeddings   N

with N standard normal, from a generator seeded by the parameter's name: equal names give equal weights whatever else
the model holds. Whole models then get their attention scores spread as usual, see `score_spread`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.loading import count_parameters, make_model
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.huggingface.score_spread import spread_scores
from trtllm_port.huggingface.text_part import load_hf_config

if TYPE_CHECKING:
    from torch import nn


def condition(model: nn.Module, seed: int = 0) -> None:
    """Overwrite a model's parameters, and the biases among its stored buffers, with conditioned random values.

    In place; other buffers keep theirs.
    """
    owners = {
        f"{path}.{name}" if path else name: module
        for path, module in model.named_modules()
        for name in module._parameters
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                parameter.copy_(_values(name, parameter, type(owners[name]).__name__, seed))
        stored = model.state_dict().keys()
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and name in stored and name.endswith("bias"):
                buffer.copy_(_values(name, buffer, "", seed))


def _values(name: str, parameter: torch.Tensor, owner: str, seed: int) -> torch.Tensor:
    """Values for one parameter: what kind it is follows from its shape, its initial value and the module it is in."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
    if parameter.ndim < 2:
        return 0.3 * noise if name.endswith("bias") else parameter.float() + 0.3 * noise
    if "Embedding" in owner:
        return noise
    fan_in = parameter.shape[-2] if "Conv1D" in owner else math.prod(parameter.shape[1:])
    return noise / math.sqrt(max(fan_in, 1))  # a config may say 0 of something


def save_random_checkpoint(
    model: str | Path | Any,
    output_dir: str | Path,
    dtype: str = "float32",
    seed: int = 0,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Write a Hugging Face directory with conditioned random weights, from a config alone.

    Args:
        model: a directory with `config.json`, or a `transformers` config.
        output_dir: made if it does not exist; gets `config.json` and `model.safetensors` (sharded where large).
        dtype: "float32", "float16" or "bfloat16".
        seed: equal seeds give equal weights.
        trust_remote_code: run modelling code that comes with the model; the code goes along with the weights.

    Raises:
        ConfigError: there is no readable `config.json`.
        UnsupportedModelError: transformers has no causal language model for it.
    """
    from transformers import AutoModelForCausalLM

    config: Any = load_hf_config(model, trust_remote_code) if isinstance(model, str | Path) else model
    code = getattr(config, "auto_map", None) if trust_remote_code else None
    if type(config) not in AutoModelForCausalLM._model_mapping and not code:
        raise UnsupportedModelError(f"transformers has no causal language model for `{config.model_type}`")
    config = copy.deepcopy(config)
    kind = type(config).__name__
    with reading(kind, UnsupportedModelError, failed="is no config of a model that transformers can make"):
        _require_memory(config, trust_remote_code)
        built = make_model(config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
    condition(built, seed)
    spread_scores(built, seed)
    failed = "makes a model that transformers cannot save"
    with quiet_transformers(), reading(kind, UnsupportedModelError, failed=failed):
        built.save_pretrained(output_dir)
    if code and isinstance(model, str | Path):
        _copy_code(Path(model), Path(output_dir))


def _require_memory(config: Any, trust_remote_code: bool) -> None:
    """Refuse a config whose random weights do not fit into memory; they are drawn in float32, tensor by tensor."""
    import psutil

    parameters = count_parameters(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    needed, free = 4 * parameters, psutil.virtual_memory().available
    if needed > free:
        raise UnsupportedModelError(
            f"random weights for this `config.json` take {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} are free",
            hint="verify the checkpoint's own weights, or make the config's sizes smaller",
        )


def _copy_code(model_dir: Path, output_dir: Path) -> None:
    """Give a checkpoint the modelling code of a model directory, and the names of its classes."""
    for path in model_dir.glob("*.py"):
        shutil.copy(path, output_dir / path.name)
    config = json.loads((output_dir / "config.json").read_text())
    config["auto_map"] = json.loads((model_dir / "config.json").read_text())["auto_map"]
    (output_dir / "config.json").write_text(json.dumps(config, indent=2))
