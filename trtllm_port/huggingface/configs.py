"""Reading a Hugging Face directory's `config.json`: the only place that lets transformers read one.

What it holds is checked before any class of transformers sees it, as far as a class would not refuse it but run on for
hours or without end; everything else is transformers' to judge, and becomes an error that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.huggingface.compatibility.remote_code import remote_code

GIVE_MODEL = "give a Hugging Face model directory"
REMOTE_CODE = "the model brings its own code: read it, then allow it to run with `--trust-remote-code`"
_COUNT = re.compile(r"(n|num)_(\w+_)?(layers?|blocks?|heads?|experts?)|depth|layers")
MOST = 4096  # of anything that a model has modules for: published models have a few hundred layers or heads
MOST_EXPERTS = 65_536  # which may be rows of one tensor: Doge has 16,384
_DTYPES = ("dtype", "torch_dtype")


def whole_config(model_dir: str | Path, trust_remote_code: bool = False) -> Any:
    """The `transformers` config of a directory, of all parts, without the implementations of attention and experts.

    Those that it names say how somebody ran the model once (with a library that may be absent here), not what it
    computes; and where a config names one, `from_pretrained` does not do what its caller asks for.

    Raises:
        ConfigError: there is none, or transformers cannot read it.
        EnvironmentLackError: code that comes with the model needs what is not installed.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    path = Path(model_dir) / "config.json"
    raw = read_config(model_dir)
    if not {"model_type", "auto_map"} & raw.keys():
        raise ConfigError(f"`{path}` has no `model_type`", hint=GIVE_MODEL)
    hint = "it must be the `config.json` of a model that the installed transformers knows"
    kind = raw.get("model_type", "remote")
    if "auto_map" in raw and kind not in CONFIG_MAPPING and not trust_remote_code:
        hint = REMOTE_CODE
    failed = f"is not a valid `{kind}` config"
    with reading(path, ConfigError, hint=hint, failed=failed), remote_code("auto_map" in raw and trust_remote_code):
        config = AutoConfig.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
        if not type(config).model_type:  # a class that comes with the model need not say
            type(config).model_type = kind
        for part in (config, *parts_of(config).values()):
            for choice in ("_attn_implementation", "_experts_implementation"):
                if getattr(part, choice, None) is not None:
                    setattr(part, choice, None)
    return config


def new_config(model_type: str, **values: Any) -> Any:
    """The `transformers` config of a type of model that it knows, such as `llama`; other values are the defaults."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**values)


def own_properties(kind: type[Any]) -> list[str]:
    """The names of what a class of configs computes of its keys, without what every class does."""
    from transformers import PreTrainedConfig

    own = [base for base in kind.__mro__ if base not in PreTrainedConfig.__mro__]
    return [name for base in own for name, value in vars(base).items() if isinstance(value, property)]


def read_config(model_dir: str | Path) -> dict[str, Any]:
    """The content of a directory's `config.json`, as it is.

    Raises:
        ConfigError: there is none, it holds no JSON object, or a value that no config has.
    """
    path = Path(model_dir) / "config.json"
    if not path.exists():
        raise ConfigError(f"`{model_dir}` has no `config.json`", hint=GIVE_MODEL)
    raw = read_json(path, ConfigError, hint="it must be the `config.json` of a Hugging Face model: fetch it again")
    problems = list(_problems(raw))
    if problems:
        raise ConfigError(f"`{path}` cannot be read: {'; '.join(problems)}", hint="correct the file, or fetch it again")
    return raw


def parts_of(config: Any) -> dict[str, Any]:
    """The configs of several models that a config holds, by their keys; a part that is not there is None."""
    return {name: getattr(config, name, None) for name in getattr(config, "sub_configs", None) or {}}


def unquantized(config: Any) -> Any:
    """The config without what it says of quantization, of its own and of its parts: what is computed is the same."""
    for part in (config, *parts_of(config).values()):
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config
    return config


def _problems(raw: dict[str, Any]) -> Iterator[str]:
    names = raw.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        yield f"`architectures` is {_shown(names)}, expected a list of class names"
    if not isinstance(raw.get("model_type", ""), str):
        yield f"`model_type` is {_shown(raw['model_type'])}, expected a name"
    yield from _odd_values(raw)


def _odd_values(raw: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Values that transformers would look up in torch, or make so many modules of; those of parts included."""
    import torch

    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _odd_values(value, f"{prefix}{key}.")
        elif key in _DTYPES and isinstance(value, str):
            if value != "auto" and not isinstance(getattr(torch, value.removeprefix("torch."), None), torch.dtype):
                yield f"`{prefix}{key}` is {_shown(value)}, expected a data type of torch such as `float16`"
        elif _COUNT.fullmatch(key) and isinstance(value, int | float):
            most = MOST_EXPERTS if "expert" in key else MOST
            if not -most <= value <= most:
                yield f"`{prefix}{key}` is {_shown(value)}, more than the {most:,} that any model has"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
