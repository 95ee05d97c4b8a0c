"""The model types of the coverage run: transformers' list, and the table `model_types.toml` beside it."""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("model_types.toml")
DENSE = "dense and MoE"


@cache
def table() -> dict[str, Any]:
    """The content of `model_types.toml`."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def model_types() -> list[str]:
    """Every model type for which the installed transformers has a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def family_of(model_type: str) -> str:
    """The family of a type; dense and MoE decoders are in none of the table's."""
    return next((name for name, types in table()["families"].items() if model_type in types), DENSE)


def sizes_of_families() -> Counter[str]:
    """How many types each family has."""
    return Counter(family_of(model_type) for model_type in model_types())


def sample() -> list[str]:
    """A few types of every family, which all supported releases of transformers have."""
    return [name for types in table()["sample"].values() for name in types]


def changes_of(model_type: str) -> dict[str, Any]:
    """What the table sets in the class's default config."""
    return {
        key: value
        for change in table()["changes"]
        if model_type in change["types"]
        for key, value in change["values"].items()
    }


def write_config(model_type: str, directory: Path) -> Any:
    """Write the class-default config of a type, as changed by the table; returns it."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = transformers.CONFIG_MAPPING[model_type](**changes_of(model_type))
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    config.architectures = [names if isinstance(names, str) else names[0]]
    config.save_pretrained(directory)
    return config
