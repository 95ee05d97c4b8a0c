"""Is a directory the unquantized model that another one was quantized from? Refused before any long work if not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, PortError
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.loading import make_on_paper
from trtllm_port.huggingface.text_part import load_hf_config, loads_whole
from trtllm_port.layers.quantization import scheme_of
from trtllm_port.layers.weights import HuggingFaceWeights
from trtllm_port.verification.taps.layer_groups import name_a_few

HINT = "`--original` takes the model that this one was quantized from"
# Keys that say how a model is stored, or used, not what it computes.
OF_NO_MATTER = frozenset(
    {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    | {"quantization_config", "compression_config", "bos_token_id", "eos_token_id", "pad_token_id"}
)


def require_original(original: Path, model_dir: Path, trust_remote_code: bool = False) -> None:
    """Refuse an original that is quantized itself, incomplete, or another model by its architecture and shapes.

    Args:
        original: the directory of the unquantized model.
        model_dir: that of the quantized one.
        trust_remote_code: run Python code that comes with the models.

    Raises:
        ConfigError: see above.
    """
    scheme = scheme_of(original)
    if scheme is not None:
        raise ConfigError(f"the original `{original}` is quantized, too (by {scheme.method})", hint=HINT)
    try:
        HuggingFaceWeights(original)
    except PortError as error:
        raise ConfigError(f"the original cannot be used: {error.message}", hint=error.hint) from error
    whole = whole_config(original, trust_remote_code)
    if loads_whole(whole):
        raise ConfigError(
            f"the original `{original}` is a `{whole.model_type}` model of several parts",
            hint="save its language model as a model of its own",
        )
    own, other = (load_hf_config(each, trust_remote_code) for each in (original, model_dir))
    if own.architectures[:1] != other.architectures[:1]:
        names = [next(iter(each.architectures), "no architecture") for each in (own, other)]
        raise ConfigError(f"the original is a {names[0]}, the quantized model a {names[1]}", hint=HINT)
    vocabularies = [each.get_text_config().vocab_size for each in (own, other)]
    if vocabularies[0] != vocabularies[1]:
        raise ConfigError(
            f"the original has a vocabulary of {vocabularies[0]:,} tokens, the quantized model one of "
            f"{vocabularies[1]:,}",
            hint=HINT,
        )
    _require_shapes(_shapes(original, own, trust_remote_code), _shapes(model_dir, other, trust_remote_code))


def _shapes(directory: Path, config: Any, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    with reading(directory, ConfigError, failed="is of a model that cannot be made"):
        model = make_on_paper(config, trust_remote_code=trust_remote_code)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _require_shapes(own: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]]) -> None:
    differing = [name for name in dict.fromkeys([*other, *own]) if own.get(name) != other.get(name)]
    if differing:
        first = differing[0]
        raise ConfigError(
            f"{len(differing)} parameters of the original have other shapes: `{first}` has {_shown(own.get(first))}, "
            f"in the quantized model {_shown(other.get(first))}",
            hint=HINT,
        )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def differing_keys(original: Path, model_dir: Path, trust_remote_code: bool = False) -> str:
    """Name the keys of the two configs that differ and could matter, each model runs with its own; "" for none."""
    own, other = (load_hf_config(each, trust_remote_code).to_dict() for each in (original, model_dir))
    keys = sorted(key for key in {*own, *other} - OF_NO_MATTER if own.get(key) != other.get(key))
    return name_a_few([f"`{key}`" for key in keys])
