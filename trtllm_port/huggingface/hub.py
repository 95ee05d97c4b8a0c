"""Where a model's files are, a local directory or a hub id fetched into the hub's cache."""

from __future__ import annotations

import os
from pathlib import Path

from trtllm_port.errors import ConfigError

SMALL_FILES = ["*.json", "*.model", "*.txt", "*.py", "*.jinja"]
WEIGHTS = ["*.safetensors"]


def locate_model(model: str | Path, *, weights: bool = True) -> Path:
    """Return the local directory of a model.

    Args:
        model: a directory, or a hub id such as `meta-llama/Llama-3.2-1B`.
        weights: whether the weights are needed, too.

    Raises:
        ConfigError: neither a directory with a `config.json` nor a model that the hub (or its cache) knows.
        CheckpointError: an adapter lies beside the weights, or alone.
    """
    directory = Path(model).expanduser()
    try:
        os.fsencode(directory.absolute()).decode()
    except UnicodeError as error:
        raise ConfigError(
            f"`{directory.absolute()}` is no name in UTF-8",
            hint="rename the directory: libraries that read weights take no other names",
        ) from error
    if directory.is_dir():
        if weights or not (directory / "config.json").is_file():
            from trtllm_port.layers.weights.source import refuse_adapter

            refuse_adapter(directory)
        if not (directory / "config.json").is_file():
            raise ConfigError(
                f"`{directory}` has no `config.json`",
                hint="give the directory of a Hugging Face model: the one that `save_pretrained` wrote",
            )
        return directory
    if directory.exists() or directory.is_absolute() or str(model).startswith(".") or str(model).count("/") > 1:
        raise ConfigError(f"`{model}` is not a directory", hint="give a Hugging Face model directory, or a hub id")
    return _download(str(model), weights=weights)


def _download(model_id: str, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = SMALL_FILES + WEIGHTS if weights else SMALL_FILES
    try:
        return locate_model(snapshot_download(model_id, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ConfigError(
            f"`{model_id}` is neither a directory nor a model that the hub gives: {str(error).splitlines()[0]}",
            hint="check the spelling; for a gated model run `hf auth login`; offline, give a local directory",
        ) from error
