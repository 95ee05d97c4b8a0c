"""Whether an engine is of the checkpoint that it is compared with: both sides' files have digests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtllm_port.errors import BundleError, EngineError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.runtime.engines.directory import CONFIG, EngineDirectory

SOURCE = "source"  # in a checkpoint's configuration: file of the Hugging Face directory → digest
NO_CONFIG = "is not the configuration of an engine"
NAMED = 3


def require_engine_of(engine_dir: Path, model_dir: Path) -> None:
    """Refuse an engine of another checkpoint: it would differ everywhere, and not by a fault of the port.

    Args:
        engine_dir: the engine.
        model_dir: the Hugging Face directory whose weights it is compared with.

    Raises:
        EngineError: the files that it was converted from are others, or it does not say which they were.
    """
    recorded = _source_of(engine_dir)
    found = {name: file_digest(model_dir / name) for name in recorded if (model_dir / name).is_file()}
    _require_equal(engine_dir, recorded, found, f"`{model_dir}`")


def require_engine_like(engine_dir: Path, config: Path, bundle: Path) -> None:
    """The same for an engine that takes the place of a bundle's network, whose configuration is `config`."""
    with reading(config, BundleError, failed=NO_CONFIG):
        saved = _sources(read_json(config, BundleError)["pretrained_config"])
    _require_equal(engine_dir, _source_of(engine_dir), saved, f"the bundle `{bundle}`")


def _sources(pretrained_config: Mapping[str, Any]) -> dict[str, str]:
    return dict(pretrained_config.get(SOURCE, {}))


def _source_of(engine_dir: Path) -> dict[str, str]:
    found = EngineDirectory.read(engine_dir).pretrained_config
    with reading(engine_dir / CONFIG, EngineError, failed=NO_CONFIG):
        recorded = _sources(found)
    if not recorded:
        raise EngineError(
            f"`{engine_dir}` does not say which checkpoint it was converted from",
            hint="convert the model again with `trtllm-port convert`, and build it",
        )
    return recorded


def _require_equal(engine_dir: Path, recorded: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    differing = sorted(name for name, digest in recorded.items() if found.get(name) != digest)
    if differing:
        named = ", ".join(f"`{name}`" for name in differing[:NAMED]) + (" …" if len(differing) > NAMED else "")
        raise EngineError(
            f"`{engine_dir}` is an engine of another checkpoint than {where}: {named} differ"
            + ("s" if len(differing) == 1 else ""),
            hint="name the model that it was converted from, or convert and build this one",
        )
