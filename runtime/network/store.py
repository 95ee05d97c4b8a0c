"""Writes and reads `rank{r}.network.json` and the constants beside it.

One layer, tensor, tap or constant a line, in the network's order: two builds can be compared with `diff`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from trtllm_port.errors import EngineError
from trtllm_port.foundation.foreign import read_json, typed
from trtllm_port.layers.weights.source import SafetensorsFile
from trtllm_port.runtime.network.dtypes import STORAGE
from trtllm_port.runtime.network.schema import FORMAT, VERSION, Constant, LayerRecord, TensorRecord

INLINE_LIMIT = 64  # elements; larger constants go to the file beside the JSON
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
LINE = tuple[str, Any]


def constants_path(path: Path) -> Path:
    """The file of large constants that belongs to a network file: `rank0.constants.safetensors`."""
    stem = path.name.removesuffix(".json").removesuffix(".network")
    return path.with_name(f"{stem}.constants.safetensors")


def write_document(path: Path, header: dict[str, Any], sections: dict[str, Iterable[LINE] | list[Any]]) -> None:
    """Write the header's entries and then each section, one entry a line."""
    parts = [f"{json.dumps(key)}: {_compact(value)}" for key, value in header.items()]
    for title, entries in sections.items():
        if isinstance(entries, list):
            lines = ",\n".join(f"  {_compact(entry)}" for entry in entries)
            parts.append(f"{json.dumps(title)}: [\n{lines}\n ]")
        else:
            lines = ",\n".join(f"  {json.dumps(key)}: {_compact(value)}" for key, value in entries)
            parts.append(f"{json.dumps(title)}: {{\n{lines}\n }}")
    path.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")


def read_document(path: Path) -> dict[str, Any]:
    """Read what `write_document` wrote.

    Raises:
        EngineError: the file is absent, is no network file, or of a version that this release does not read.
    """
    document = read_json(path, EngineError, hint="run `trtllm-port build` again", failed="is not a network file")
    if document.get("format") != FORMAT:
        raise EngineError(f"{path} is not a network file", hint="expected a file that `trtllm-port build` wrote")
    if document.get("version") != VERSION:
        raise EngineError(
            f"{path} has version {document.get('version')!r}, this release reads version {VERSION}",
            hint="run `trtllm-port build` again",
        )
    return document


def layer_to_json(layer: LayerRecord) -> dict[str, Any]:
    """A layer as it stands in the file; empty attributes are left out."""
    entry = {"type": layer.type, "name": layer.name, "inputs": layer.inputs, "outputs": layer.outputs}
    return {**entry, "attributes": layer.attributes} if layer.attributes else entry


def layer_from_json(entry: dict[str, Any]) -> LayerRecord:
    """The inverse of `layer_to_json`."""
    return typed(LayerRecord, entry)


def tensor_from_json(entry: Any) -> TensorRecord:
    """A tensor of the file, which has its dtype and its shape in a list."""
    record = typed(TensorRecord, dict(zip(("dtype", "shape"), entry, strict=True)))
    if record.dtype not in STORAGE:
        raise ValueError(f"no dtype is called `{record.dtype}`")
    if any(size < -1 for size in record.shape):
        raise ValueError(f"no tensor has the shape {list(record.shape)}")
    return record


class ConstantWriter:
    """Turns constants into JSON entries and collects the large ones for the file beside."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self._keys: dict[tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype], str] = {}
        self.large: dict[str, torch.Tensor] = {}

    def entry(self, name: str, constant: Constant) -> dict[str, Any]:
        """The JSON entry of one constant."""
        shape = list(constant.shape)
        if constant.parameter is not None:
            return {"parameter": constant.parameter, "shape": shape}
        value = constant.value
        if value is None:
            raise EngineError(f"the constant {name!r} has neither a parameter nor a value")
        if value.numel() <= INLINE_LIMIT:
            return {"values": [_to_json(x) for x in _flat(value)], "shape": shape}
        identity = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
        key = self._keys.setdefault(identity, name)
        if key == name:
            self.large[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"file": self._file_name, "key": key, "shape": shape}

    def write(self, path: Path) -> None:
        """Write the large constants; no file if there are none."""
        if self.large:
            path.write_bytes(save(self.large))  # safetensors' own `save_file` makes a file that only its owner may read


class ConstantReader:
    """Turns JSON entries back into constants."""

    def __init__(self, path: Path, tensors: dict[str, TensorRecord]) -> None:
        self._path = path
        self._tensors = tensors
        self._opened: SafetensorsFile | None = None

    def constant(self, name: str, entry: dict[str, Any]) -> Constant:
        """The constant that `entry` describes; its value is read from the file beside where it stands there."""
        shape = tuple(entry["shape"])
        if "parameter" in entry:
            return Constant(shape, parameter=entry["parameter"])
        dtype = STORAGE[self._tensors[name].dtype]
        if "values" in entry:
            return Constant(
                shape, value=torch.tensor([_from_json(x) for x in entry["values"]]).to(dtype).reshape(shape)
            )
        return Constant(shape, value=self._file(entry["file"]).tensor(entry["key"]).reshape(shape))

    def _file(self, name: str) -> SafetensorsFile:
        if name != self._path.name or not self._path.is_file():  # no other file: its digest was not checked
            raise EngineError(
                f"the constants file {self._path.parent / name} is missing", hint="run `trtllm-port build` again"
            )
        if self._opened is None:
            self._opened = SafetensorsFile(self._path)
        return self._opened


def _flat(value: torch.Tensor) -> list[Any]:
    wide = value.float() if value.is_floating_point() else value
    return list(wide.reshape(-1).tolist())


def _to_json(number: Any) -> Any:
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number


def _from_json(number: Any) -> Any:
    return _SPECIAL[number] if isinstance(number, str) else number


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
