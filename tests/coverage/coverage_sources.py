"""What measured tables depend on: this package's sources, and the versions of a few libraries."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from trtllm_port.foundation.digests import bytes_digest

ROOT = Path(__file__).parents[2]
SOURCES = ("trtllm_port", "layers", "runtime", "scaffolds")
KINDS = (".py", ".toml", ".j2", ".json")
LIBRARIES = ("transformers", "torch", "tensorrt-rtx-cu13")


def versions() -> dict[str, str]:
    """What the figures depend on beside our sources."""
    return {name: version(name).split("+")[0] for name in LIBRARIES}


def digest(tests: str) -> str:
    """Of our sources, a folder of tests, and those versions."""
    parts = [json.dumps(versions()).encode()]
    for folder in (*SOURCES, tests):
        files = (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in KINDS)
        parts += [str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() for path in files if path.is_file()]
    return bytes_digest(b"\0".join(parts)).partition(":")[2][:16]
