"""`trtllm-port models`: the registered ports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port.cli.terminal import console, options
from trtllm_port.registry.workspace import unmarked_models

if TYPE_CHECKING:
    from trtllm_port.registry.ports import PortEntry


@dataclass(frozen=True)
class Listing:
    """The ports of a workspace and of the environment, and the files that were edited since they were generated."""

    workspace: Path
    ports: tuple[PortEntry, ...]
    edited: dict[str, list[str] | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `edited` is null for a port without `port.json`."""
        return {"ports": [port.to_dict() | {"edited": self.edited[port.architecture]} for port in self.ports]}


def models(workspace: options.Workspace = Path("."), as_json: options.Json = False) -> None:
    """List the registered ports of the workspace and of the environment."""
    from trtllm_port.registry.manifest import edited_files
    from trtllm_port.registry.ports import list_ports

    ports = tuple(list_ports(workspace))
    edited = {port.architecture: edited_files(port.package_dir) for port in ports}
    console.emit(Listing(workspace, ports, edited), _render, as_json=as_json)


def _render(listing: Listing) -> None:
    if (unmarked := unmarked_models(listing.workspace)) is not None:
        console.note(unmarked)
    if not listing.ports:
        console.note(f"no port is registered in workspace `{listing.workspace}`")
        console.note("next: trtllm-port new MODEL_DIR")
        return
    rows = [
        [port.architecture, port.name, _state(listing.edited[port.architecture]), port.origin, port.package_dir]
        for port in listing.ports
    ]
    console.table(["architecture", "port", "state", "from", "directory"], rows)


def _state(edited: list[str] | None) -> str:
    if edited is None:
        return "by hand"
    return f"edited: {', '.join(edited)}" if edited else "as generated"
