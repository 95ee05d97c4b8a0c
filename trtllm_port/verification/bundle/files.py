"""The directory of a bundle: what is in it, and the checks before any of it is believed.

    bundle.json            format, version, what was verified, and size and digest of every other file
    <phase>.safetensors    sketches, floors and logits
    network-<dtype>/       an engine directory for the reference executor, with the weights if they are small
    report.json            of the run that was saved

There is nothing in it that could be executed: JSON and safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trtllm_port.errors import BundleError
from trtllm_port.foundation.atomic_files import write_json
from trtllm_port.foundation.digests import bytes_digest, file_digest
from trtllm_port.foundation.foreign import read_json, reading, typed

BUNDLE_JSON = "bundle.json"
FORMAT, VERSION = "trtllm-port bundle", 1
SUFFIXES = (".json", ".safetensors")
AGAIN = "save it again with `--save`"


@dataclass(frozen=True)
class _File:
    """What the manifest says of a file."""

    bytes: int
    digest: str


def is_bundle(path: Path) -> bool:
    """Whether a directory claims to be a bundle."""
    return (path / BUNDLE_JSON).is_file()


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write `bundle.json` over all files that the directory has."""
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "digest": file_digest(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    body = {"format": FORMAT, "version": VERSION, **content, "files": files}
    write_json(directory / BUNDLE_JSON, body | {"digest": _digest(body)})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read `bundle.json` and check every file that it names.

    Raises:
        BundleError: not a bundle, of another version, incomplete, altered, or with a file outside of it.
    """
    content = read_json(directory / BUNDLE_JSON, BundleError, hint=AGAIN)
    if content.get("format") != FORMAT:
        raise BundleError(f"`{directory}` is not a bundle of trtllm-port", hint="bundles are written by `--save`")
    if content.get("version") != VERSION:
        raise BundleError(
            f"`{directory}` has format version {content.get('version')!r}, this release reads {VERSION}", hint=AGAIN
        )
    body = {name: value for name, value in content.items() if name != "digest"}
    with reading(directory / BUNDLE_JSON, BundleError, hint=AGAIN):
        unaltered = content.get("digest") == _digest(body)
        files = dict(content["files"])
    if not unaltered:
        raise BundleError(f"`{directory / BUNDLE_JSON}` was altered: its digest is not the one it states", hint=AGAIN)
    for name, stated in files.items():
        _check(directory, name, stated)
    return content


def require_listed(directory: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """Return the path of a file that is about to be read.

    Raises:
        BundleError: `bundle.json` does not list it, so nothing says what it should hold.
    """
    if name not in manifest["files"]:
        raise BundleError(f"`{directory / BUNDLE_JSON}` does not list `{name}`", hint=AGAIN)
    return directory / name


def _check(directory: Path, name: str, stated: Any) -> None:
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or "\\" in name or plain.suffix not in SUFFIXES:
        raise BundleError(f"`{directory / BUNDLE_JSON}` names `{name}`, which no bundle has", hint=AGAIN)
    with reading(directory / BUNDLE_JSON, BundleError, hint=AGAIN):
        facts = typed(_File, stated)
    path = directory / plain
    if not path.is_file() or not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(f"`{directory}` is incomplete: `{name}` is missing or lies outside", hint=AGAIN)
    size = path.stat().st_size
    if size != facts.bytes:
        raise BundleError(f"`{path}` has {size:,} bytes, {facts.bytes:,} were saved", hint=AGAIN)
    if file_digest(path) != facts.digest:
        raise BundleError(f"`{path}` was altered since it was saved: its digest differs", hint=AGAIN)


def _digest(body: Mapping[str, Any]) -> str:
    return bytes_digest(json.dumps(body, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))
