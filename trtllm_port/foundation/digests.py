"""The digest of files and bytes, in the one form that configs and reports hold: `xxh3_128:<hex>`.

It tells contents apart at memory speed, but proves no origin.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

_CHUNK = 8 << 20


def digest_text(state: xxhash.xxh3_128) -> str:
    """The text form of what a running digest has seen."""
    return f"xxh3_128:{state.hexdigest()}"


def bytes_digest(data: bytes) -> str:
    """Digest of some bytes."""
    return digest_text(xxhash.xxh3_128(data))


def file_digest(path: Path) -> str:
    """Digest of a file's content, read in chunks."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return digest_text(state)
