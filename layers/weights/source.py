"""Where tensors come from: safetensors files of a Hugging Face directory, or a mapping in memory.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header size, JSON header, data).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from trtllm_port.errors import CheckpointError

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ADAPTER_CONFIG = "adapter_config.json"
_DTYPE_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CONVERT = "convert it to safetensors where running its code is safe: `model.save_pretrained(dir)` of transformers"


def refuse_adapter(directory: Path) -> None:
    """Refuse a directory with an adapter: transformers applies it to the weights where `peft` is installed.

    Raises:
        CheckpointError: there is an `adapter_config.json`.
    """
    if not (directory / ADAPTER_CONFIG).is_file():
        return
    merge = "merge it with `peft`'s `merge_and_unload()`, save the model, and give that directory"
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"`{directory}` holds an adapter and no model (`{ADAPTER_CONFIG}`)", hint=merge)
    raise CheckpointError(
        f"`{directory}` holds an adapter beside the weights (`{ADAPTER_CONFIG}`), which a port does not apply",
        hint=f"{merge}; for the weights without it, move `{ADAPTER_CONFIG}` elsewhere",
    )


class TensorSource(Protocol):
    """Named tensors whose shapes and data types are known without reading them."""

    def names(self) -> Sequence[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> str: ...

    def tensor(self, name: str) -> torch.Tensor: ...


class MappingWeights:
    """Tensors in memory, a `state_dict()` say, as a `TensorSource`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name].detach()


class SafetensorsFile:
    """One safetensors file: its header is read and checked, its tensors are memory-mapped.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, or is shorter or longer than its header says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = _read_header(path)
        self._handle: Any = None

    def names(self) -> Sequence[str]:
        return list(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._header[name]["shape"])

    def dtype(self, name: str) -> str:
        code = str(self._header[name]["dtype"])
        return _DTYPE_NAMES.get(code, code)

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor, a view of the mapped file; it keeps the mapping alive."""
        if self._handle is None:
            try:
                self._handle = safe_open(str(self.path), framework="pt")
            except SafetensorError as error:
                raise CheckpointError(f"`{self.path}` cannot be read: {error}") from error
        tensor: torch.Tensor = self._handle.get_tensor(name)
        return tensor


def _read_header(path: Path) -> dict[str, Any]:
    """The header's tensors in the order of their data."""
    if not path.is_file():
        raise CheckpointError(f"`{path}` is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"`{path}` is truncated or no safetensors file: {size} bytes", hint="fetch it again")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_unique)
            header.pop("__metadata__", None)
            data = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # not the JSON that it should be
            raise CheckpointError(f"`{path}` is no safetensors file: {error}", hint="fetch it again") from error
    if 8 + length + data != size:
        raise CheckpointError(
            f"`{path}` has {size} bytes, its header says {8 + length + data}", hint="it is truncated: fetch it again"
        )
    return dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key `{key}`")
        result[key] = value
    return result


class HuggingFaceWeights:
    """The tensors of a Hugging Face model directory, in `model.safetensors` or in shards with an index.

    Raises:
        CheckpointError: an adapter; no weights; pickled weights (never opened: a pickle runs code); missing or
            truncated shards; a tensor in two shards; an index that names what its shard lacks. All is reported at once.
    """

    def __init__(self, hf_model_dir: str | Path) -> None:
        self.directory = Path(hf_model_dir)
        refuse_adapter(self.directory)
        self.files = [self.directory / name for name in self._file_names()]
        problems: list[str] = []
        self._files: dict[str, SafetensorsFile] = {}
        for path in self.files:
            try:
                file = SafetensorsFile(path)
            except CheckpointError as error:
                problems.append(error.message)
                continue
            for name in file.names():
                if name in self._files:
                    problems.append(f"`{name}` is in `{self._files[name].path.name}` and in `{path.name}`")
                self._files[name] = file
        if not problems:
            problems = [
                f"`{n}` is in the index, but not in `{f}`" for n, f in self._index.items() if n not in self._files
            ]
        if problems:
            raise CheckpointError("; ".join(sorted(problems)), hint="fetch the missing files again")

    def _file_names(self) -> list[str]:
        """The files to read; transformers prefers the single file, too."""
        self._index: dict[str, str] = {}
        self._index_dtype: str | None = None
        index = self.directory / "model.safetensors.index.json"
        if (self.directory / "model.safetensors").is_file():
            return ["model.safetensors"]
        if index.is_file():
            self._index, self._index_dtype = _read_index(index)
            return sorted(set(self._index.values()))
        pickles = sorted(path.name for pattern in PICKLE_PATTERNS for path in self.directory.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"`{self.directory}` has pickled weights only ({', '.join(pickles[:3])}); opening them can run code",
                hint=_CONVERT,
            )
        raise CheckpointError(
            f"`{self.directory}` has no `model.safetensors` and no `model.safetensors.index.json`",
            hint="fetch the model's weights",
        )

    def names(self) -> Sequence[str]:
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files[name].shape(name)

    def dtype(self, name: str) -> str:
        return self._files[name].dtype(name)

    def tensor(self, name: str) -> torch.Tensor:
        return self._files[name].tensor(name)

    def main_dtype(self) -> str | None:
        """The type that transformers loads a model in where its config names none; None if there is no such tensor.

        That is the one that the index names; else of the tensors in the first file, in the order of their names, the
        first one's that is of a floating-point type other than those of 8 bits and fewer.
        """
        if self._index_dtype is not None:
            return self._index_dtype
        first = [name for name, file in self._files.items() if file.path == self.files[0]]
        dtypes = (self.dtype(name) for name in sorted(first))
        return next((found for found in dtypes if found in ("float64", "float32", "float16", "bfloat16")), None)


def _read_index(path: Path) -> tuple[dict[str, str], str | None]:
    """Tensor → file, and the data type that the index names."""
    try:
        content = json.loads(path.read_text())
        weight_map: dict[str, str] = dict(content["weight_map"].items())
        dtype = (content.get("metadata") or {}).get("dtype")
        outside = sorted({name for name in weight_map.values() if Path(name).name != name})
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # not the JSON that it should be
        raise CheckpointError(f"`{path}` is no index of shards: {error!r}") from error
    if outside:
        raise CheckpointError(f"`{path}` names files outside its directory: {', '.join(outside)}")
    return weight_map, None if dtype is None else str(dtype).removeprefix("torch.")
