"""The methods that are read, by their names, and the scheme of a model directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.foundation.foreign import read_json
from trtllm_port.layers.quantization.layouts.layout import Layout, refuse
from trtllm_port.layers.quantization.layouts.scheme import QuantizationScheme
from trtllm_port.layers.quantization.layouts.settings import Settings, shown
from trtllm_port.layers.quantization.methods import awq, compressed_tensors, fp8, gptq, modelopt, mxfp4

MODELOPT_FILE = "hf_quant_config.json"
#: where `config.json` says it; the second is an older name of compressed-tensors
KEYS = ("quantization_config", "compression_config")
HINT = "give the model that it was quantized from, or one that is quantized by one of these"


@dataclass(frozen=True)
class Method:
    """How a method's config is read, and its layouts by the names that its schemes give."""

    read_scheme: Callable[[Settings], QuantizationScheme]
    layouts: Mapping[str, Layout]


METHODS = {
    "fp8": Method(fp8.read_scheme, fp8.LAYOUTS),
    "compressed-tensors": Method(compressed_tensors.read_scheme, compressed_tensors.LAYOUTS),
    "gptq": Method(gptq.read_scheme, gptq.LAYOUTS),
    "awq": Method(awq.read_scheme, awq.LAYOUTS),
    "mxfp4": Method(mxfp4.read_scheme, mxfp4.LAYOUTS),
    "modelopt": Method(modelopt.read_scheme, modelopt.LAYOUTS),
}


def read_scheme(config: Mapping[str, Any], modelopt_file: Mapping[str, Any] | None = None) -> QuantizationScheme | None:
    """How a model is quantized, or None if it is not.

    Args:
        config: of `config.json`; its own `quantization_config` counts before that of its `text_config`.
        modelopt_file: of `hf_quant_config.json`, which counts before both.

    Raises:
        UnsupportedModelError: the method is not one of those that are read.
        CheckpointError: fields of an odd type, or with values that are not read; all in one.
    """
    if modelopt_file is not None:
        return _checked("modelopt", dict(modelopt_file), MODELOPT_FILE)
    text = config.get("text_config")
    for part, path in ((config, ""), (text if isinstance(text, dict) else {}, "text_config.")):
        for key in KEYS:
            if part.get(key):
                return _checked(None, part[key], path + key)
    return None


def _checked(method: str | None, values: object, path: str) -> QuantizationScheme:
    problems: list[str] = []
    settings = Settings(values, path, problems)
    refuse(problems, "correct the file, or fetch it again")
    named = settings.get("quant_method")
    method = method or ("compressed-tensors" if named is None and settings.has("config_groups") else named)
    if not isinstance(method, str) or method not in METHODS:
        raise UnsupportedModelError(
            f"`{path}` has `quant_method` {shown(method)}; those that are read are {', '.join(METHODS)}", hint=HINT
        )
    scheme = METHODS[method].read_scheme(settings)
    refuse(problems, "such weights are not read; give the model that they were quantized from")
    return replace(scheme, unread=settings.unread)


def method_of(model_dir: str | Path) -> str | None:
    """The name of the method by which a directory's weights are quantized, whether or not it is read; None: by none."""
    directory = Path(model_dir)
    if (directory / MODELOPT_FILE).is_file():
        return "modelopt"
    config = read_json(directory / "config.json", CheckpointError)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for settings in filter(None, map(part.get, KEYS)):
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            return str(method or "by an unnamed method")
    return None


def scheme_of(model_dir: str | Path) -> QuantizationScheme | None:
    """How the model of a directory is quantized, or None if it is not; raises as `read_scheme`."""
    directory = Path(model_dir)
    hint = "fetch it again"
    config = read_json(directory / "config.json", CheckpointError, hint=hint)
    own = directory / MODELOPT_FILE
    return read_scheme(config, read_json(own, CheckpointError, hint=hint) if own.exists() else None)
