"""Where tensors come from: safetensors files of a Hugging Face directory, or a mapping in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.layers.weights.header import DTYPES, read_header

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ADAPTER_CONFIG = "adapter_config.json"
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
        self.entries = read_header(path)
        self._handle: Any = None

    def names(self) -> Sequence[str]:
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> str:
        code = self.entries[name].dtype
        return DTYPES[code][0] if code in DTYPES else code

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor, a view of the mapped file; it keeps the mapping alive."""
        with reading(self.path, CheckpointError, hint="fetch it again"):
            if self._handle is None:
                self._handle = safe_open(str(self.path), framework="pt")
            tensor: torch.Tensor = self._handle.get_tensor(name)
        return tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them."""
        return {name: self.tensor(name) for name in self.entries}


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

    def place(self, name: str) -> tuple[str, int, int]:
        """Where a tensor's bytes are: (name of the file, first byte, the one behind the last)."""
        entry = self._files[name].entries[name]
        return self._files[name].path.name, entry.start, entry.stop

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
    index = read_json(path, CheckpointError, hint="fetch it again", failed="is no index of shards")
    weight_map, metadata = index.get("weight_map"), index.get("metadata") or {}
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"`{path}` is no index of shards: `weight_map` does not map tensors to files")
    if not isinstance(metadata, dict):
        raise CheckpointError(f"`{path}` is no index of shards: `metadata` is no object")
    dtype = metadata.get("dtype")
    outside = sorted({name for name in weight_map.values() if Path(name).name != name})
    if outside:
        raise CheckpointError(f"`{path}` names files outside its directory: {', '.join(outside)}")
    return weight_map, None if dtype is None else str(dtype).removeprefix("torch.")
