"""The header of a safetensors file, read and checked before anything is allocated by what it says.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header size, JSON header, data without gaps). The
limit of the header's size is that of the safetensors library, which refuses larger ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.foreign import json_object, reading

LARGEST_HEADER = 100_000_000
#: safetensors' name of a data type → torch's name, and bytes of an element
DTYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8),
    "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
}  # fmt: skip
_LENGTH = 8
_AGAIN = "fetch it again"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: safetensors' name of its data type, its shape, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file in the order of their data, which fills the rest of the file without gaps.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, or is shorter or longer than its header says.
    """
    if not path.is_file():
        raise CheckpointError(f"`{path}` is missing" if not path.exists() else f"`{path}` is no regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > size - _LENGTH:
            raise CheckpointError(f"`{path}` is truncated or no safetensors file: {size} bytes", hint=_AGAIN)
        if length > LARGEST_HEADER:
            raise CheckpointError(
                f"`{path}` is no safetensors file: its header would have {length:,} bytes, {LARGEST_HEADER:,} at most",
                hint=_AGAIN,
            )
        with reading(path, CheckpointError, hint=_AGAIN, failed="is damaged or no safetensors file"):
            entries = _entries(json_object(file.read(length), object_pairs_hook=_unique), _LENGTH + length)
    data = max((entry.stop for entry in entries.values()), default=_LENGTH + length)
    if data != size:
        raise CheckpointError(
            f"`{path}` has {size} bytes, its header says {data}", hint="it is truncated: fetch it again"
        )
    return entries


def _entries(header: dict[str, Any], data: int) -> dict[str, TensorEntry]:
    """Every tensor's entry; ValueError for the first that is not as the format has it."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("`__metadata__` does not map texts to texts")
    found = {name: _entry(name, value, data) for name, value in header.items()}
    position = data
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
    for name, entry in ordered.items():
        if entry.start != position:
            raise ValueError(f"the bytes of `{name}` begin at {entry.start}, those before end at {position}")
        position = entry.stop
    return ordered


def _entry(name: str, value: Any, data: int) -> TensorEntry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"`{name}` has no dtype, shape and data_offsets, or more than these")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"`{name}` has a dtype, a shape or offsets of another type than the format has")
    start, stop = offsets
    # the bytes of other data types are not known here: nothing is read of them, for no port has them
    bytes_needed = math.prod(shape) * DTYPES[dtype][1] if dtype in DTYPES else stop - start
    if stop < start or stop - start != bytes_needed:
        raise ValueError(f"`{name}` of shape {tuple(shape)} in {dtype} has bytes {start} to {stop}")
    return TensorEntry(dtype, tuple(shape), data + start, data + stop)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key `{key}`")
        result[key] = value
    return result
