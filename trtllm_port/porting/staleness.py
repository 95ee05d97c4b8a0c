"""Which ports were written from something else than what is there now, and whether that computes something else.

Releases and digests are compared first. Where they differ, the small model that a port was traced from is traced again,
and its operations are compared with those on record; or, where only TensorRT is another one, the port is checked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trtllm_port.errors import PortError, WorkspaceError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import reading, reason
from trtllm_port.foundation.progress import Progress
from trtllm_port.registry.manifest import DAMAGED, NAME, RECORD, read_manifest
from trtllm_port.registry.ports import PortEntry, list_ports
from trtllm_port.runtime.engines.devices import FLAVOURS, flavour_version

CURRENT, UNCHANGED, CHANGED, UNKNOWN = "current", "unchanged", "changed", "unknown"
NO_RECORD = "it has no record of what was traced: `trtllm-port new --force` makes one"


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """What became of what one port was written from.

    Attributes:
        port: its registry entry.
        state: "current"; "unchanged": stale, and nothing that the port computes has changed; "changed": stale, and a
            computation has; "unknown": it cannot be told.
        because: what is another one than the port was written from; of "unknown" why it cannot be told.
        diff: the operations on record against those of now, as `codegen.difference` gives it; empty where they are the
            same.
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
    """What `port.json` says of what a port is written from, beside the release of transformers and the small config.

    Args:
        sources: files that were traced → their digests.
        model_dir: of the model.
        own_code: whether the model brought its own code.
    """
    own = {path.name: file_digest(path) for path in sorted(model_dir.glob("*.py"))} if own_code else {}
    return {
        "sources": {name: digest for name, digest in sources.items() if "/" in name} | own,
        "own_code": str(model_dir.resolve()) if own_code else None,
        "tensorrt": _tensorrt(),
    }


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What a port was written from, as `port.json` says.

    Attributes:
        transformers: the release.
        config, changes: of the record of operations, see `codegen.TracedConfig`.
        sources: files → digests.
        own_code: the directory of a model that brought its own code.
        tensorrt: library → version.
    """

    transformers: str
    config: dict[str, Any]
    changes: dict[str, Any]
    sources: dict[str, str]
    own_code: Path | None
    tensorrt: dict[str, str]

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> _Written:
        traced = manifest["traced"]
        own = traced["own_code"]
        return cls(
            transformers=str(manifest["transformers"]),
            own_code=None if own is None else Path(own),
            **{name: dict(traced[name]) for name in ("config", "changes", "sources", "tensorrt")},
        )


def _check(port: PortEntry, workspace: Path, trust_remote_code: bool) -> Staleness:
    manifest, path = read_manifest(port.package_dir), port.package_dir / RECORD
    if manifest is None or "model_type" not in manifest:
        return Staleness(port=port, state=UNKNOWN, because=("it was written by hand",))
    with reading(port.package_dir / NAME, WorkspaceError, hint=DAMAGED, failed="is not what `trtllm-port new` writes"):
        traced = manifest.get("traced", {})
        if "problem" in traced or not traced or not path.is_file():
            return Staleness(port=port, state=UNKNOWN, because=(traced.get("problem", NO_RECORD),))
        then = _Written.read(manifest)
    code, tensorrt = list(_other_code(then)), list(_other_tensorrt(then))
    if not code and not tensorrt:
        return Staleness(port=port, state=CURRENT)
    stale = partial(Staleness, port=port, stale=True)
    if (problem := _not_traceable(then, trust_remote_code)) is not None:
        return stale(state=UNKNOWN, because=(*code, *tensorrt, problem))
    try:
        diff = _difference(path.read_text(encoding="utf-8"), then) if code else ""
        if tensorrt and not diff:
            _require_right(then, workspace)
    except PortError as error:
        return stale(state=UNKNOWN, because=(*code, *tensorrt, error.message))
    except Exception as error:  # any: it is Hugging Face's code that runs here
        return stale(state=UNKNOWN, because=(*code, *tensorrt, reason(error)))
    return stale(state=CHANGED if diff else UNCHANGED, because=(*code, *tensorrt), diff=diff)


def _not_traceable(then: _Written, trust_remote_code: bool) -> str | None:
    """Why a model's own code cannot be traced again; None if it can, or if there is none."""
    if then.own_code is None:
        return None
    if not then.own_code.is_dir():
        return f"`{then.own_code}`, whose code the port was written from, is gone"
    return None if trust_remote_code else "`--trust-remote-code` lets the model's own code run, to be traced again"


def _other_code(then: _Written) -> Iterator[str]:
    """What of transformers, or of a model's own code, is not what was traced."""
    from trtllm_port.huggingface.models import source_file

    if (now := version("transformers")) != then.transformers:
        yield f"transformers {then.transformers} → {now}"
    for name, digest in then.sources.items():
        file = source_file(name, then.own_code)
        if not file.is_file():
            yield f"`{name}` is gone"
        elif file_digest(file) != digest:
            yield f"`{name}` has changed"


def _other_tensorrt(then: _Written) -> Iterator[str]:
    now = _tensorrt()
    for flavour, before in then.tensorrt.items():
        if now.get(flavour) != before:
            yield f"{flavour} {before} → {now.get(flavour, 'not installed')}"


def _tensorrt() -> dict[str, str]:
    return {flavour: found for flavour in FLAVOURS if (found := flavour_version(flavour)) is not None}


def _difference(record: str, then: _Written) -> str:
    """How the operations of now differ from a record; empty if they compute the same."""
    from trtllm_port.codegen import TracedConfig, difference, operation_record

    return difference(record, operation_record(TracedConfig(then.config, then.changes), code=then.own_code))


def _require_right(then: _Written, workspace: Path) -> None:
    """PortError unless the port, defined with the TensorRT of now, computes what Hugging Face computes."""
    from trtllm_port.codegen import TracedConfig, check_port
    from trtllm_port.codegen.operation_record import small_model

    with small_model(TracedConfig(then.config, then.changes), then.own_code) as directory:
        found = check_port(directory, workspace=workspace, trust_remote_code=then.own_code is not None)
    if not found.passed:
        raise PortError(found.problem or f"it differs from Hugging Face, first at {found.first_divergence}")
