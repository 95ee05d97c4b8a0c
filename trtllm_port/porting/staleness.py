"""Which ports were written from something else than what is there now, and whether that computes something else.

Releases and digests are compared first. Where they differ, the small model that a port was traced from is traced again,
and its operations are compared with those on record; or, where only TensorRT is another one, the port is checked again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trtllm_port.errors import PortError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import reason
from trtllm_port.foundation.progress import Progress
from trtllm_port.registry.manifest import RECORD, read_manifest
from trtllm_port.registry.ports import PortEntry, list_ports
from trtllm_port.runtime.engines.devices import FLAVOURS, flavour_version

CURRENT, UNCHANGED, CHANGED, UNKNOWN = "current", "unchanged", "changed", "unknown"
CONTEXT = 2
"""Lines of a class around one that differs."""


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """What became of what one port was written from.

    Attributes:
        port: its registry entry.
        state: "current"; "unchanged": stale, and nothing that the port computes has changed; "changed": stale, and a
            computation has; "unknown": it cannot be told.
        because: what is another one than the port was written from; of "unknown" why it cannot be told.
        diff: the operations on record against those of now, as a unified diff; empty where they are the same.
        stale: whether something is another one.
    """

    port: PortEntry
    state: str
    because: tuple[str, ...] = ()
    diff: str = ""
    stale: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        found = {
            "state": self.state,
            "stale": self.stale,
            "because": list(self.because),
            "diff": self.diff.splitlines(),
        }
        return self.port.to_dict() | {"check": found}


def check_ports(
    workspace: Path, *, trust_remote_code: bool = False, progress: Progress | None = None
) -> list[Staleness]:
    """Look at every registered port.

    Args:
        workspace: where ports are registered.
        trust_remote_code: run the code that a model directory brings along, where it has changed.
        progress: called with (phase, done, total).

    Raises:
        RegistryError: the ports cannot be imported.
        WorkspaceError: what says where a port comes from is damaged.
    """
    found, ports = [], list_ports(workspace)
    for index, port in enumerate(ports):
        if progress is not None:
            progress("check", index, len(ports))
        found.append(_check(port, workspace, trust_remote_code))
    return found


def written_from(sources: Mapping[str, str], model_dir: Path, *, own_code: bool) -> dict[str, Any]:
    """What `port.json` says of what a port is written from, beside the release of transformers.

    Args:
        sources: files that were traced → their digests.
        model_dir: of the model.
        own_code: whether the model brought its own code.
    """
    own = {path.name: file_digest(path) for path in sorted(model_dir.glob("*.py"))} if own_code else {}
    return {
        "sources": {**sources, **own},
        "own_code": str(model_dir.resolve()) if own_code else None,
        "tensorrt": _tensorrt(),
    }


def _check(port: PortEntry, workspace: Path, trust_remote_code: bool) -> Staleness:
    manifest = read_manifest(port.package_dir)
    if manifest is None or "model_type" not in manifest:
        return Staleness(port=port, state=UNKNOWN, because=("it was written by hand",))
    traced, path = manifest.get("traced"), port.package_dir / RECORD
    if not isinstance(traced, dict) or not path.is_file():
        told = (traced or {}).get(
            "problem"
        ) or "it has no record of what was traced: `trtllm-port new --force` makes one"
        return Staleness(port=port, state=UNKNOWN, because=(told,))
    because = [*_other_code(manifest, traced), *_other_tensorrt(traced)]
    if not because:
        return Staleness(port=port, state=CURRENT)
    own = Path(traced["own_code"]) if traced["own_code"] else None
    if own is not None and not own.is_dir():
        return _unknown(port, because, f"`{own}`, whose code the port was written from, is gone")
    if own is not None and not trust_remote_code:
        return _unknown(port, because, "`--trust-remote-code` lets the model's own code run, to be traced again")
    try:
        if any(_other_code(manifest, traced)):
            diff = _difference(path.read_text(encoding="utf-8"), traced, own)
            if diff:
                return Staleness(port=port, state=CHANGED, because=tuple(because), diff=diff, stale=True)
        if any(_other_tensorrt(traced)):
            _require_right(traced, own, workspace)
    except PortError as error:
        return _unknown(port, because, error.message)
    except Exception as error:  # any: it is Hugging Face's code that runs here
        return _unknown(port, because, reason(error))
    return Staleness(port=port, state=UNCHANGED, because=tuple(because), stale=True)


def _unknown(port: PortEntry, because: list[str], problem: str) -> Staleness:
    return Staleness(port=port, state=UNKNOWN, because=(*because, problem), stale=True)


def _other_code(manifest: Mapping[str, Any], traced: Mapping[str, Any]) -> Iterator[str]:
    """What of transformers, or of a model's own code, is not what was traced."""
    from trtllm_port.huggingface.models import source_file

    if (now := version("transformers")) != manifest["transformers"]:
        yield f"transformers {manifest['transformers']} → {now}"
    own = Path(traced["own_code"]) if traced["own_code"] else None
    for name, digest in traced["sources"].items():
        file = source_file(name, own)
        if not file.is_file():
            yield f"`{name}` is gone"
        elif file_digest(file) != digest:
            yield f"`{name}` has changed"


def _other_tensorrt(traced: Mapping[str, Any]) -> Iterator[str]:
    now = _tensorrt()
    for flavour, then in traced["tensorrt"].items():
        if now.get(flavour) != then:
            yield f"{flavour} {then} → {now.get(flavour, 'not installed')}"


def _tensorrt() -> dict[str, str]:
    return {flavour: found for flavour in FLAVOURS if (found := flavour_version(flavour)) is not None}


def _difference(record: str, traced: Mapping[str, Any], own: Path | None) -> str:
    """How the operations of now differ from a record; empty if they compute the same."""
    from trtllm_port.codegen import TracedConfig, computations, operation_record

    now = operation_record(TracedConfig(traced["config"], traced["changes"]), code=own)
    if computations(record) == computations(now):
        return ""
    lines = difflib.unified_diff(
        record.splitlines(), now.splitlines(), "on record", "traced now", n=CONTEXT, lineterm=""
    )
    return "\n".join(lines)


def _require_right(traced: Mapping[str, Any], own: Path | None, workspace: Path) -> None:
    """PortError unless the port, defined with the TensorRT of now, computes what Hugging Face computes."""
    from trtllm_port.codegen import TracedConfig, check_port
    from trtllm_port.codegen.operation_record import small_model

    with small_model(TracedConfig(traced["config"], traced["changes"]), own) as directory:
        found = check_port(directory, workspace=workspace, trust_remote_code=own is not None)
    if not found.passed:
        raise PortError(found.problem or f"it differs from Hugging Face, first at {found.first_divergence}")
