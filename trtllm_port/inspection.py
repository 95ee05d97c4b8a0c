"""What can be known about a model without running it: sizes, the config ledger, the tensors, the port that serves it.

This composes the generator's findings with the weight files' headers and the registry.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port.errors import RegistryError, UnsupportedModelError
from trtllm_port.foundation.foreign import reading
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.configs import read_config
from trtllm_port.huggingface.loading import count_parameters
from trtllm_port.layers.config.per_layer import config_value, plain_values
from trtllm_port.layers.quantization import METHODS, QuantizationSummary, QuantizedSource, method_of, open_weights
from trtllm_port.registry.ports import PortEntry, find_port

if TYPE_CHECKING:
    from trtllm_port.codegen import PortSource

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "sliding_window"),
    *("rope_parameters", "tie_word_embeddings"),
)


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """What the headers of the weight files say."""

    files: int
    tensors: int
    bytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class LedgerRow:
    """What becomes of one key of the config: `used`, `built in`, `ignored`, or `unknown` to transformers."""

    key: str
    value: Any
    state: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The findings.

    Attributes:
        parameters: number of values in all weights, tied ones once.
        sizes: those of `SIZES` that the config has, defaults filled in.
        tensors: None where the directory has no weights.
        port: None where no port of the workspace serves the architecture.
        quantized: how the weights are quantized; None where they are not.
        quantization: what of the weights is quantized how; None where there are none, or by a method that is not read.
    """

    model_dir: Path
    architecture: str
    model_type: str
    hf_class: str
    dtype: str
    parameters: int
    sizes: dict[str, Any]
    ledger: tuple[LedgerRow, ...]
    skeletons: tuple[dict[str, str], ...]
    tensors: TensorSummary | None
    port: PortEntry | None
    quantized: str | None = None
    quantization: QuantizationSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return values | {
            "model_dir": str(self.model_dir),
            "ledger": [asdict(row) for row in self.ledger],
            "skeletons": list(self.skeletons),
            "tensors": None if self.tensors is None else asdict(self.tensors),
            "port": None if self.port is None else self.port.to_dict(),
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
        }


def inspect_model(
    model_dir: Path,
    *,
    workspace: Path = Path("."),
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Inspect a Hugging Face model directory; weights are not needed.

    Args:
        model_dir: with `config.json`.
        workspace: where a port is looked for.
        trust_remote_code: let transformers run the code that the model directory brings along.
        progress: called with (phase, done, total).

    Raises:
        ConfigError, UnsupportedModelError: the model cannot be ported.
        CheckpointError: there are weights, but they cannot be read.
    """
    from trtllm_port.codegen import generate_port
    from trtllm_port.codegen.generate import load_config

    config = load_config(model_dir, trust_remote_code)
    source = generate_port(model_dir, trust_remote_code=trust_remote_code, progress=progress)
    return Inspection(
        model_dir=model_dir,
        architecture=source.architecture,
        model_type=source.model_type,
        hf_class=source.hf_class,
        dtype=str(config.dtype).removeprefix("torch."),
        parameters=_count_parameters(config, trust_remote_code),
        sizes={name: _plain(value) for name in SIZES if (value := config_value(config, name)) is not None},
        ledger=_rows(source, config, read_config(model_dir)),
        skeletons=tuple(asdict(skeleton) for skeleton in source.skeletons),
        tensors=_tensors(model_dir),
        port=_port(workspace, source.architecture),
        quantized=method_of(model_dir),
        quantization=_quantization(model_dir),
    )


def _quantization(model_dir: Path) -> QuantizationSummary | None:
    """What of the weights that are there is quantized how."""
    if method_of(model_dir) not in METHODS or not any(model_dir.glob("*.safetensors*")):
        return None
    weights = open_weights(model_dir)
    return weights.summary() if isinstance(weights, QuantizedSource) else None


def _rows(source: PortSource, config: Any, given: dict[str, Any]) -> tuple[LedgerRow, ...]:
    """Unknown keys first, then what the port computes with, what it has built in, and what cannot matter."""
    ledger, values = source.ledger, plain_values(config)
    limits = {
        key: f"{key} other than {' or '.join(map(repr, values))} is refused" for key, values in ledger.accepted.items()
    }
    known = {item.name for item in dataclasses.fields(type(config))} | set(type(config).attribute_map)
    states = {
        **{key: ("ignored", why) for key, why in ledger.ignored.items()},
        **{key: ("built in", ledger.notes.get(key, "")) for key in ledger.fixed},
        **{key: ("used", why) for key, why in ledger.used.items()},
    }
    for name, limit in limits.items():
        key = name.partition(".")[0]
        if key in states:
            states[key] = (states[key][0], f"{states[key][1]}; {limit}")
    unknown = {key: ("unknown", states[key][1]) for key in given if key in states and key not in known}
    unknown.pop("model_type", None)
    order = ["unknown", "used", "built in", "ignored"]
    rows = [LedgerRow(key, _plain(values.get(key)), *state) for key, state in (states | unknown).items()]
    return tuple(sorted(rows, key=lambda row: (order.index(row.state), row.key)))


def _count_parameters(config: Any, trust_remote_code: bool) -> int:
    failed = "is no config of a model that transformers can make"
    with reading(type(config).__name__, UnsupportedModelError, failed=failed):
        return count_parameters(config, trust_remote_code=trust_remote_code)


def _tensors(model_dir: Path) -> TensorSummary | None:
    from trtllm_port.layers import HuggingFaceWeights

    if not any(model_dir.glob("*.safetensors*")):
        return None
    weights = HuggingFaceWeights(model_dir)
    names = weights.names()
    return TensorSummary(
        files=len(weights.files),
        tensors=len(names),
        bytes=sum(path.stat().st_size for path in weights.files),
        dtypes=dict(Counter(weights.dtype(name) for name in names)),
    )


def _port(workspace: Path, architecture: str) -> PortEntry | None:
    try:
        return find_port(workspace, architecture)
    except RegistryError:
        return None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
