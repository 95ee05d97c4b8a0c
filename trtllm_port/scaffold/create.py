"""Makes a port: generated from a model and checked against it, or blank."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port.errors import ConfigError
from trtllm_port.files import file_digest
from trtllm_port.scaffold.blank import blank_source
from trtllm_port.scaffold.names import default_name
from trtllm_port.scaffold.templates import render_template
from trtllm_port.scaffold.write import WrittenPort, refuse_existing, write_port

if TYPE_CHECKING:
    from trtllm_port.codegen import PortSource, SelfCheck

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ScaffoldResult:
    """A port that was written.

    Attributes:
        port: where it is.
        source: what the generator found out; None for a blank port.
        check: the comparison with Hugging Face on random weights; None for a blank port.
    """

    port: WrittenPort
    source: PortSource | None = None
    check: SelfCheck | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.port.name,
            "architecture": self.port.architecture,
            "workspace": str(self.port.workspace),
            "written": list(self.port.written),
            "skeletons": [] if self.source is None else [skeleton.to_dict() for skeleton in self.source.skeletons],
            "ledger": None if self.source is None else self.source.ledger.to_dict(),
            "check": None if self.check is None else self.check.to_dict(),
        }


def create_port(
    model_dir: Path,
    *,
    workspace: Path = Path("."),
    name: str | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> ScaffoldResult:
    """Generate a port from a Hugging Face model, write it into a workspace, and check it there.

    Args:
        model_dir: a directory with `config.json`; weights are not needed.
        workspace: made if it does not exist.
        name: of the port; made from the model's type if None.
        force: replace a port of that name, or another one that serves the architecture.
        trust_remote_code: let transformers run the code that the model directory brings along.
        progress: called with (phase, done, total).

    Raises:
        ConfigError, UnsupportedModelError: the model cannot be ported; nothing was written.
        WorkspaceError: the name is not usable, or a port exists and `force` is not given.
        DiskSpaceError: the disk is full.
    """
    from trtllm_port.codegen import check_port, generate_port

    config = _read_config(model_dir)
    name = name or default_name(str(config.get("model_type", "")))
    refuse_existing(workspace, name, next(iter(config.get("architectures") or []), None), force=force)
    source = generate_port(model_dir, name=name, trust_remote_code=trust_remote_code, progress=progress)
    port = write_port(_WithTest(source), workspace=workspace, name=name, force=force, origin=_origin(source, model_dir))
    check = check_port(model_dir, workspace=workspace, trust_remote_code=trust_remote_code, progress=progress)
    return ScaffoldResult(port=port, source=source, check=check)


def create_blank_port(
    name: str, *, workspace: Path = Path("."), architecture: str | None = None, force: bool = False
) -> ScaffoldResult:
    """Write the skeleton of a port to fill in by hand.

    Args:
        name: of the port, `my_model`.
        workspace: made if it does not exist.
        architecture: the name in `config.json` that the port serves; made from `name` if None.
        force: replace what is there.

    Raises:
        WorkspaceError, DiskSpaceError: as `create_port`.
    """
    port = write_port(blank_source(name, architecture), workspace=workspace, name=name, force=force)
    return ScaffoldResult(port=port)


class _WithTest:
    """A generated source with the test that compares it with Hugging Face."""

    def __init__(self, source: PortSource) -> None:
        self.architecture: str = source.architecture
        self.class_name: str = source.architecture
        tiny = json.dumps(source.tiny_config, indent=4)
        values = {"name": source.name, "architecture": source.architecture, "tiny_config": tiny}
        self.files: Mapping[str, str] = {**source.files, **render_template("generated", values)}


def _origin(source: PortSource, model_dir: Path) -> dict[str, Any]:
    import transformers

    return {
        "model_type": source.model_type,
        "hf_class": source.hf_class,
        "transformers": transformers.__version__,
        "config": file_digest(model_dir / "config.json"),
        "ledger": source.ledger.to_dict(),
        "skeletons": [skeleton.to_dict() for skeleton in source.skeletons],
    }


def _read_config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"`{model_dir}` has no `config.json`", hint="give a Hugging Face model directory") from error
    except ValueError as error:
        raise ConfigError(f"`{path}` cannot be read: {error}", hint="it must be a JSON object") from error
    if not isinstance(config, dict):
        raise ConfigError(f"`{path}` holds no JSON object", hint="give a Hugging Face model directory")
    return config
