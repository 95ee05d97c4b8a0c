"""`trtllm-port models`: the registered ports, and which of them are stale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.registry.workspace import unmarked_models

if TYPE_CHECKING:
    from trtllm_port.porting.staleness import Staleness
    from trtllm_port.registry.ports import PortEntry

Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Say which ports are stale: written from another transformers, TensorRT or code of the model's."
    ),
]
STATES = {
    "current": "current",
    "unchanged": "stale, computes the same",
    "changed": "stale, computes something else",
    "unknown": "cannot tell",
}


@dataclass(frozen=True)
class Listing:
    """The ports of a workspace and of the environment, and the files that were edited since they were generated."""

    workspace: Path
    ports: tuple[PortEntry, ...]
    edited: dict[str, list[str] | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `edited` is null for a port without `port.json`."""
        return {"ports": [port.to_dict() | {"edited": self.edited[port.architecture]} for port in self.ports]}


@dataclass(frozen=True)
class CheckedListing:
    """The same ports, and what became of what they were written from."""

    workspace: Path
    ports: tuple[Staleness, ...]

    @property
    def changed(self) -> bool:
        """Whether a port is stale whose computation has changed, or may have."""
        return any(found.state == "changed" or (found.state == "unknown" and found.stale) for found in self.ports)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"ports": [found.to_dict() for found in self.ports]}


def models(
    workspace: options.Workspace = Path("."),
    check: Check = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """List the registered ports of the workspace and of the environment.

    With --check, exit code 1 tells that a port is stale and that what it computes has changed, or could not be told.
    """
    if check:
        return _check(workspace, trust_remote_code, as_json=as_json)
    from trtllm_port.registry.manifest import edited_files
    from trtllm_port.registry.ports import list_ports

    ports = tuple(list_ports(workspace))
    edited = {port.architecture: edited_files(*port.packages) for port in ports}
    console.emit(Listing(workspace, ports, edited), _render, as_json=as_json)
    return 0


def _check(workspace: Path, trust_remote_code: bool, *, as_json: bool) -> int:
    options.require_transformers()
    from trtllm_port.porting.staleness import check_ports

    with console.progress() as progress:
        found = check_ports(workspace, trust_remote_code=trust_remote_code, progress=progress)
    listing = CheckedListing(workspace, tuple(found))
    console.emit(listing, _render_check, as_json=as_json)
    return 1 if listing.changed else 0


def _render(listing: Listing) -> None:
    if _nothing(listing.workspace, listing.ports):
        return
    rows = [
        [port.architecture, port.name, _state(listing.edited[port.architecture]), port.origin, port.package_dir]
        for port in listing.ports
    ]
    console.table(["architecture", "port", "state", "from", "directory"], rows)


def _render_check(listing: CheckedListing) -> None:
    if _nothing(listing.workspace, listing.ports):
        return
    rows = [
        [found.port.architecture, found.port.name, STATES[found.state], "; ".join(found.because)]
        for found in listing.ports
    ]
    console.table(["architecture", "port", "state", "because"], rows)
    for found in listing.ports:
        if found.diff:
            console.line(f"{found.port.name} ({found.port.package_dir}):")
            for line in found.diff.splitlines():
                console.line(line)


def _nothing(workspace: Path, ports: tuple[Any, ...]) -> bool:
    """Whether there are no ports, which is told."""
    if (unmarked := unmarked_models(workspace)) is not None:
        console.note(unmarked)
    if not ports:
        console.note(f"no port is registered in workspace `{workspace}`")
        console.note("next: trtllm-port new MODEL_DIR")
    return not ports


def _state(edited: list[str] | None) -> str:
    if edited is None:
        return "by hand"
    return f"edited: {', '.join(edited)}" if edited else "as generated"
