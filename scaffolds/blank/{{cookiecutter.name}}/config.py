"""Config of the {{ cookiecutter.name }} port."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self

from trtllm_port.errors import ConfigError
from trtllm_port.layers import Mapping, PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class {{ cookiecutter.prefix }}Config(PretrainedConfig):
    """What the network computes with. Fields carry the names of the keys in `config.json`."""

    # TODO: one field for every key that changes what the model computes; a default only where HF has the same one
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: dict[str, Any]

    @classmethod
    def from_hugging_face(
        cls,
        hf_model_dir: str | Path,
        dtype: str = "auto",
        mapping: Mapping | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read `config.json` without transformers. Remove this method if transformers knows the model."""
        values = json.loads(Path(hf_model_dir, "config.json").read_text(encoding="utf-8"))
        # TODO: keys that the model calls otherwise, and what follows from others
        values.setdefault("num_key_value_heads", values["num_attention_heads"])
        values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
        values.setdefault("rope_parameters", {"rope_type": "default", "rope_theta": values.get("rope_theta", 10000.0)})
        found = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        found["architecture"] = values["architectures"][0]
        found["dtype"] = dtype if dtype != "auto" else values.get("dtype", values.get("torch_dtype", "float32"))
        found["mapping"] = mapping or Mapping()
        needed = {item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING}
        if missing := sorted(needed - found.keys()):
            raise ConfigError(f"`config.json` of `{hf_model_dir}` lacks {', '.join(missing)}")
        return cls(**found)
