"""Models of transformers: with the weights that their files hold, with new ones, or with none yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.compatibility.lost_tensors import replace_lost_tensors, shared_with_loaded
from trtllm_port.huggingface.compatibility.quantized_inputs import round_inputs
from trtllm_port.huggingface.compatibility.remote_code import is_remote, remote_code
from trtllm_port.huggingface.quiet import quiet_transformers

_IN_PLACE = re.compile(r"__i(add|sub|mul|truediv|floordiv|mod|pow)__|\w*[^_]_")
EAGER = "eager"
"""The implementation that a modelling file has; of experts the default, `grouped_mm`, knows no float64."""


def load_model(
    model_dir: Path,
    config: Any,
    dtype: torch.dtype,
    *,
    eager: bool = False,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Load a model with the weights of its safetensors, as they are stored.

    Args:
        model_dir: where they are.
        config: of the whole model (see `whole_config`).
        dtype: what the model computes in.
        eager: compute attention and experts as the modelling file has them, with no kernel that is faster.
        trust_remote_code: run Python code that comes with the model.
        local_files_only: take nothing from the hub, not even code that the config refers to.

    Returns:
        The model, and which of its weights are missing from the files and which of theirs it does not use.
    """
    from transformers import AutoModelForCausalLM

    settings = {
        "config": config,
        "dtype": dtype,
        **({"attn_implementation": EAGER, "experts_implementation": EAGER} if eager else {}),
        "local_files_only": local_files_only,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    with quiet_transformers(), weights_as_stored(), remote_code(_may_run(config, trust_remote_code)):
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                model_dir, trust_remote_code=trust_remote_code, **settings
            )
        except Exception:  # any: the loader may be one that comes with the model
            load = _transformers_loader(config, dtype, trust_remote_code=trust_remote_code)
            if load is None:
                raise
            model, info = load(model_dir, **settings)
    if is_remote(type(model)):
        fresh = make_without_weights(config, dtype, trust_remote_code=trust_remote_code)
        replace_lost_tensors(model, fresh)
        info["missing_keys"] = set(info["missing_keys"]) - shared_with_loaded(model, info["missing_keys"])
    if dtype == torch.float64:
        for parameter in model.parameters():  # some are of float32 by name: of routers, from transformers 5.24 on
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.to(dtype)
    round_inputs(model, Path(model_dir))
    return model, info


def _transformers_loader(config: Any, dtype: torch.dtype, *, trust_remote_code: bool) -> Callable[..., Any] | None:
    """What loads safetensors for a class that comes with a model and has a loader of its own, for other files."""
    from transformers import PreTrainedModel

    if not _may_run(config, trust_remote_code):
        return None
    model_class: Any = type(make_without_weights(config, dtype, trust_remote_code=trust_remote_code))
    plain = PreTrainedModel.__dict__["from_pretrained"].__func__
    return None if model_class.from_pretrained.__func__ is plain else partial(plain, model_class)


def make_model(
    config: Any,
    *,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    experts: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Make a model of a config, with the weights that transformers draws for a new one.

    Args:
        config: of transformers; the model may write into it.
        dtype: of the weights; None: the config's.
        attention, experts: the names of the implementations that compute them, such as "eager"; None: transformers'
            choice.
        trust_remote_code: see `load_model`.
    """
    from transformers import AutoModelForCausalLM

    chosen = {"dtype": dtype, "attn_implementation": attention, "experts_implementation": experts}
    settings = {name: choice for name, choice in chosen.items() if choice is not None}
    with quiet_transformers(), remote_code(_may_run(config, trust_remote_code)):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **settings)


def _may_run(config: Any, trust_remote_code: bool) -> bool:
    """Whether code that comes with a model may run: where it made the config, that was allowed."""
    return trust_remote_code or is_remote(type(config))


def make_on_paper(config: Any, *, dtype: torch.dtype | None = None, trust_remote_code: bool = False) -> nn.Module:
    """Make a model without memory for anything that it holds: it cannot compute, but tells its modules and shapes."""
    with torch.device("meta"):
        model: nn.Module = make_model(config, dtype=dtype, trust_remote_code=trust_remote_code)
    return model


def make_without_weights(config: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> nn.Module:
    """Make a model whose parameters are on the meta device, and its buffers where they can be computed with.

    It computes attention and experts as the modelling file has them.
    """
    with _parameters_on_meta():
        model: nn.Module = make_model(
            config, dtype=dtype, attention=EAGER, experts=EAGER, trust_remote_code=trust_remote_code
        )
    return model


def find_class(architecture: str) -> type[nn.Module]:
    """A class of transformers by its name, which a `config.json` gives as architecture.

    Raises:
        UnsupportedModelError: there is none.
    """
    import transformers

    found: type[nn.Module] | None = getattr(transformers, architecture, None)
    if found is None:
        raise UnsupportedModelError(f"transformers has no class `{architecture}`, which `config.json` names")
    return found


def make_whole_on_paper(kind: type[nn.Module], config: Any) -> nn.Module:
    """Make a model of all parts without memory for weights, where libraries that some parts need may be absent, too."""
    from transformers import AutoModel

    make = AutoModel.from_config

    def from_config(*args: Any, **kwargs: Any) -> nn.Module:
        try:
            made: nn.Module = make(*args, **kwargs)
        except ImportError:
            return _Unknown()
        return made

    with torch.device("meta"), mock.patch.object(AutoModel, "from_config", from_config):
        return kind(config)


def count_parameters(config: Any, *, trust_remote_code: bool = False) -> int:
    """How many values the weights of a config's model hold, tied ones once; none of them is made."""
    model = make_on_paper(config, trust_remote_code=trust_remote_code)
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def weights_as_stored() -> Iterator[None]:
    """While it lasts, `from_pretrained` changes nothing that it has read from a file.

    transformers (5.23) initialises modules after loading, and trusts `_init_weights` to leave alone what was loaded.
    Those that change a weight in place do not: Mamba's divides `out_proj` where the config has
    `rescale_prenorm_residual`, Youtu's puts zeros into a row of the embedding.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel._initialize_weights

    def initialize(self: PreTrainedModel, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        with _ReadOnly():
            original(self, module, *args, **kwargs)

    with mock.patch.object(PreTrainedModel, "_initialize_weights", initialize):
        yield


class _Unknown(nn.Module):
    """A part that cannot be made: only the names of parts matter, and its weights have some name."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(1))


class _ReadOnly(TorchFunctionMode):
    """While active, operations in place leave tensors as they are that transformers has read from a file, or parts."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        in_place = _IN_PLACE.fullmatch(getattr(func, "__name__", "")) is not None
        loaded = bool(args) and getattr(args[0], "_is_hf_initialized", False)
        if in_place and loaded:
            return args[0]
        result = func(*args, **(kwargs or {}))
        if loaded and isinstance(result, torch.Tensor) and _same_memory(result, args[0]):
            result._is_hf_initialized = True  # type: ignore[attr-defined]  # where transformers looks
        return result


def _same_memory(part: torch.Tensor, whole: torch.Tensor) -> bool:
    return not part.is_meta and part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


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
