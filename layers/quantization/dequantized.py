"""A quantized model as the model that it was quantized from: the same directory, with its weights dequantized.

transformers dequantizes some methods itself, with a package for each, some to the bit and some not; of one method it
takes the codes for weights. Here the method's own formula makes the weights, in float32, and transformers loads a plain
model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.atomic_files import require_space, write_json
from trtllm_port.foundation.claims import scratch
from trtllm_port.foundation.foreign import read_json
from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.quantization.methods.table import KEYS, MODELOPT_FILE
from trtllm_port.layers.quantization.source import QuantizedSource, open_weights
from trtllm_port.layers.weights import TensorSource
from trtllm_port.layers.weights.header import DTYPES

SHARD = 2 << 30  # bytes
FLOAT32 = "float32"
_ITEM = dict(DTYPES.values())


def write_dequantized(model_dir: Path, output: Path, progress: Progress | None = None) -> QuantizedSource | None:
    """Write a quantized model as a plain one; None, and nothing is written, where the model is not quantized.

    Args:
        model_dir: with `config.json` and safetensors.
        output: a directory that is made.
        progress: called with ("dequantize", bytes done, bytes in all).

    Raises:
        UnsupportedModelError, CheckpointError: the weights cannot be read, see `open_weights`.
        DiskSpaceError: the disk is too small for four bytes a weight.
    """
    source = open_weights(model_dir, dtype=FLOAT32)
    if not isinstance(source, QuantizedSource):
        return None
    write_plain(source, model_dir, output, progress)
    return source


def write_plain(source: TensorSource, model_dir: Path, output: Path, progress: Progress | None = None) -> None:
    """Write a source's tensors as the weights of a plain model.

    Args:
        source: of its tensors.
        model_dir: whose other files are copied.
        output: a directory that is made.
        progress: called with ("dequantize", bytes done, bytes in all).

    Raises:
        DiskSpaceError: the disk is too small.
    """
    sizes = {name: math.prod(source.shape(name)) * _ITEM[source.dtype(name)] for name in source.names()}
    output.mkdir(parents=True)
    require_space(output, sum(sizes.values()))
    _copy_small_files(model_dir, output)
    write_json(output / "config.json", _plain(read_json(model_dir / "config.json", ConfigError)))
    shards, done, placed = list(_shards(sizes)), 0, dict[str, str]()
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: source.tensor(name).contiguous() for name in names}, output / file, {"format": "pt"})
        placed |= dict.fromkeys(names, file)
        done += sum(sizes[name] for name in names)
        if progress is not None:
            progress("dequantize", done, sum(sizes.values()))
    write_json(output / "model.safetensors.index.json", {"metadata": {}, "weight_map": placed})


@contextmanager
def plain_directory(model_dir: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Give the directory of a model that is not quantized: itself, or a copy that lasts as long; see above."""
    with scratch() as work:
        quantized = write_dequantized(model_dir, work / "dequantized", progress)
        yield model_dir if quantized is None else work / "dequantized"


def _shards(sizes: dict[str, int]) -> Iterator[list[str]]:
    names, size = list[str](), 0
    for name in sizes:
        if names and size + sizes[name] > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += sizes[name]
    yield names


def _copy_small_files(model_dir: Path, output: Path) -> None:
    """Everything that transformers may ask for beside weights: code that comes with the model, and how it generates."""
    for path in model_dir.iterdir():
        is_small = path.is_file() and path.suffix in (".json", ".py", ".jinja", ".txt", ".model")
        if is_small and not path.name.endswith((".index.json", MODELOPT_FILE)):
            shutil.copyfile(path, output / path.name)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what it says of quantization, of its own and of its parts."""
    return {
        key: _plain(value) if key.endswith("_config") and isinstance(value, dict) else value
        for key, value in config.items()
        if key not in KEYS
    }
