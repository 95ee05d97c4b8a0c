"""Hugging Face configs and classes: what can be ported at all."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.compatibility.remote_code import is_remote, remote_code
from trtllm_port.huggingface.configs import REMOTE_CODE, read_config, unquantized, whole_config
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.huggingface.text_part import listed_class, text_part

BLANK = "`trtllm-port new --blank NAME` writes a port to fill in by hand"


def load_config(model_dir: str | Path, trust_remote_code: bool = False) -> Any:
    """The `transformers` config of a directory's language model; that of the text part, if it is of several models."""
    return text_part(load_whole_config(model_dir, trust_remote_code))


def load_whole_config(model_dir: str | Path, trust_remote_code: bool = False) -> Any:
    """The `transformers` config of a directory, as if its weights were not quantized: what is computed is the same."""
    raw = read_config(model_dir)
    kind = raw.get("model_type")
    own_code = "auto_map" in raw and trust_remote_code
    if isinstance(kind, str) and kind not in transformers.CONFIG_MAPPING and not own_code:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not know the model type `{kind}`",
            hint=REMOTE_CODE if "auto_map" in raw else BLANK,
        )
    with quiet_transformers():
        config = whole_config(model_dir, trust_remote_code)
    return unquantized(config)


def first_line(error: Exception) -> str:
    """The beginning of an error's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def require_causal_lm(config: Any, trust_remote_code: bool = False) -> type[nn.Module]:
    """The HF class of a decoder-only causal language model.

    Raises:
        UnsupportedModelError: it is an encoder, an encoder-decoder, or no language model.
    """
    kind = config.model_type
    remote = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
    if remote and trust_remote_code:
        return _register(config, remote)
    listed: type[nn.Module] | None = listed_class(config)
    if listed is not None:
        architectures = config.architectures or []
        encoder = [n for n in architectures if n.endswith(("ForMaskedLM", "Classification", "ForPreTraining"))]
        only_encodes = getattr(config, "is_decoder", True) is False and _is_encoder(config)
        if encoder or only_encodes:
            raise UnsupportedModelError(
                f"`{(architectures or [kind])[0]}` is an encoder model, not a decoder-only causal language model",
                hint='if it was trained to continue texts, set `"is_decoder": true` in `config.json`',
            )
        return listed
    what = "an encoder-decoder model" if getattr(config, "is_encoder_decoder", False) else "no causal language model"
    raise UnsupportedModelError(f"`{kind}` is {what}: transformers has no `…ForCausalLM` class for it")


def source_files(model: Any) -> dict[str, Path]:
    """The files that a model's classes and its config's class are written in, but for torch's.

    Returns:
        A name → the file: "transformers/models/llama/modeling_llama.py" of transformers, the file's own name of code
        that comes with the model.
    """
    found: dict[str, Path] = {}
    for kind in {type(module) for module in model.modules()} | {type(model.config)}:
        package = kind.__module__.partition(".")[0]
        file = Path(inspect.getfile(kind))
        if package == transformers.__name__:
            found[file.relative_to(_library().parent).as_posix()] = file
        elif is_remote(kind):
            found[file.name] = file
    return dict(sorted(found.items()))


def source_file(name: str, model_dir: Path | None) -> Path:
    """Where a file of `source_files` is now.

    Args:
        name: see there.
        model_dir: the directory of a model that brings its own code.
    """
    return _library().parent / name if "/" in name or model_dir is None else model_dir / name


def forget_own_code() -> None:
    """Forget all classes that came with a model: transformers would take them again, whatever a directory holds now."""
    for mapping in (transformers.CONFIG_MAPPING, transformers.MODEL_FOR_CAUSAL_LM_MAPPING):
        registered: dict[Any, type[Any]] = mapping._extra_content
        for key in [key for key, kind in registered.items() if is_remote(kind)]:
            del registered[key]


def _library() -> Path:
    return Path(transformers.__file__).parent


def _register(config: Any, reference: str) -> type[nn.Module]:
    """Load a class that comes with the model, and make transformers know it while this process lasts."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    hint = "the code that comes with the model is at fault, or is for another transformers"
    failed = "has code that cannot be loaded"
    with reading(config._name_or_path, UnsupportedModelError, hint=hint, failed=failed), remote_code():
        found: type[nn.Module] = get_class_from_dynamic_module(reference, config._name_or_path)
    if type(config).model_type in transformers.CONFIG_MAPPING and not is_remote(
        transformers.CONFIG_MAPPING[type(config).model_type]
    ):
        warnings.warn(
            f"transformers has a `{type(config).model_type}`, too: the model's own code is taken",
            stacklevel=2,
        )
    AutoConfig.register(type(config).model_type, type(config), exist_ok=True)
    AutoModelForCausalLM.register(type(config), found, exist_ok=True)
    return found


def _is_encoder(config: Any) -> bool:
    """Whether a model is an encoder unless its config says `is_decoder`: its type has a masked language model, too.

    Encoder-decoder types may have one as well; their causal language model is the decoder whatever the config says.
    """
    return type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_encoder_decoder", False)
