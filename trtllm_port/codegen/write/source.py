"""The files of a port: `model.py`, `config.py`, `convert.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple
from types import MappingProxyType
from typing import Any

from trtllm_port.codegen.configs.size_tables import META_KEYS
from trtllm_port.codegen.ir.formatting import formatted
from trtllm_port.codegen.write.classes import ClassText
from trtllm_port.codegen.write.weight_names import WeightNames
from trtllm_port.foundation.quoting import docstring, literal, require_name
from trtllm_port.layers.weights import Step

LAYERS = "trtllm_port.layers"
BASE_FIELDS = frozenset(("vocab_size", "tie_word_embeddings"))  # of `PretrainedConfig`


def model_file(classes: list[ClassText], *, title: str, config_class: str, origin: str) -> str:
    """`model.py`: the classes, inner ones first."""
    names = set().union(*(text.imports for text in classes))
    lines = [
        docstring(
            f"{title} for TensorRT: the network of Hugging Face's `{classes[-1].name}`.\n\n"
            f"Written by `trtllm-port new` from {origin}, whose names it keeps.\n"
        ),
        "",
        "from __future__ import annotations",
        "",
        *(["import math", ""] if any("math." in line for text in classes for line in text.lines) else []),
        _import(LAYERS, names),
        "",
        f"from .config import {config_class}",
        "from .convert import WEIGHT_MAP",
    ]
    for text in classes:
        lines += ["", "", *text.lines]
    return formatted("\n".join(lines))


def _import(module: str, names: set[str]) -> str:
    ordered = sorted(names, key=lambda name: (name[0].islower(), name))  # classes, then functions, as the linter wants
    return f"from {module} import {', '.join(ordered)}"


def config_file(
    fields: Mapping[str, str],
    fixed: Mapping[str, Any],
    *,
    accepted: Mapping[str, list[Any]] = MappingProxyType({}),
    longest: int | None = None,
    config_class: str,
    title: str,
    hf_config_class: str,
) -> str:
    """`config.py`: the fields that the port uses (name → type) and the values that it has built in.

    Args:
        accepted: keys of which some values only were proven.
        longest: how many tokens a text may have, if there is a limit to what was proven.
    """
    texts = {key: fixed_text(value) for key, value in fixed.items()}
    texts |= {key: f"OneOf({', '.join(map(literal, values))})" for key, values in accepted.items()}
    typing = {
        name
        for name in ("Any", "ClassVar")
        if texts or (longest and name == "ClassVar") or any(name in text for text in fields.values())
    }
    used = {name for name in ("Every", "OneOf") if any(text.startswith(f"{name}(") for text in texts.values())}
    lines = [
        docstring(f"{title}: what the port takes from Hugging Face's `config.json`."),
        "",
        "from __future__ import annotations",
        "",
        "from dataclasses import dataclass",
        *([_import("typing", typing)] if typing else []),
        "",
        _import(LAYERS, {"PretrainedConfig", *used}),
        "",
        "",
        "@dataclass(frozen=True, kw_only=True)",
        f"class {require_name(config_class, 'a class')}(PretrainedConfig):",
        "    " + docstring(f"Fields have the names and meanings of transformers' `{hf_config_class}`."),
    ]
    if fields:
        lines += ["", *(f"    {require_name(name, 'a field')}: {kind}" for name, kind in fields.items())]
    if texts:
        lines += ["", "    #: Built in: a model that has another value needs a port of its own."]
        lines += ["    FIXED: ClassVar[dict[str, Any]] = {"]
        lines += [f"        {literal(key)}: {text}," for key, text in sorted(texts.items())]
        lines += ["    }"]
    if longest is not None:
        lines += ["", "    #: Tokens: longer texts are computed in another way."]
        lines += [f"    LONGEST: ClassVar[int | None] = {longest}"]
    return formatted("\n".join(lines))


def fixed_text(value: Any) -> str:
    """A built-in value; of a list with one value for each layer, that value, for any number of layers."""
    if isinstance(value, dict) and "model_type" in value:  # a config within the config
        value = {key: item for key, item in value.items() if key not in META_KEYS and key[0] != "_"}
    if isinstance(value, list) and len(value) > 1 and all(item == value[0] for item in value):
        return f"Every({literal(value[0])})"
    return literal(value)


def field_type(values: list[Any]) -> str:
    """The annotation of a config field that had these values in the traced configurations."""
    kinds = dict.fromkeys(_kind(value) for value in values)
    if "float" in kinds:
        kinds.pop("int", None)
    none = kinds.pop("None", "absent") is None
    return " | ".join([*kinds, *(["None"] if none else [])])


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, dict):
        return "dict[str, Any]"
    if isinstance(value, list):
        return f"tuple[{field_type(value) if value else 'Any'}, ...]"
    return type(value).__name__


def convert_file(names: WeightNames, *, title: str, architecture: str) -> str:
    """`convert.py`: the exceptions between HF's tensor names and the port's parameter names."""
    entries: dict[str | tuple[str, ...], str] = {
        pattern: f"Drop({literal(reason)})" for pattern, reason in names.dropped.items()
    }
    entries |= {pattern: literal(target) for pattern, target in names.renamed.items()}
    for sources, (targets, steps) in names.transformed.items():
        entries[sources[0] if len(sources) == 1 else sources] = _transform(targets, steps)
    lines = [
        docstring(
            f"{title}: from Hugging Face's tensors to the port's parameters.\n\n"
            f"The parameters have the names that `{architecture}` gives them; only exceptions are listed.\n"
        ),
        "",
        "from __future__ import annotations",
        "",
        _import(LAYERS, {"WeightMap", *_used(names)}),
        "",
    ]
    if not entries and not names.ignored:
        return formatted("\n".join([*lines, "WEIGHT_MAP: WeightMap = {}"]))
    lines.append("WEIGHT_MAP: WeightMap = {")
    for pattern, text in sorted(entries.items(), key=lambda entry: (_is_prefix(entry[0]), str(entry))):
        lines.append(f"    {literal(pattern)}: {text},")
    for expression in sorted(names.ignored):
        lines.append(f'    Search({_expression(expression)}): Drop("transformers ignores it, too"),')
    return formatted("\n".join([*lines, "}"]))


def _expression(text: str) -> str:
    """A regular expression as a raw string, where that can hold it."""
    plain = re.fullmatch(r"[\w\\.^$*+?()|\[\]{}-]*[^\\]", text, re.ASCII)
    return f'r"{text}"' if plain else repr(text)


def _is_prefix(pattern: str | tuple[str, ...]) -> bool:
    """Whether a pattern takes all names with a beginning: it stands behind those that take some of them."""
    return isinstance(pattern, str) and pattern.endswith(".*")


def _used(names: WeightNames) -> set[str]:
    """The classes of `trtllm_port.layers` that the entries are made with."""
    steps = {type(step).__name__ for _, found in names.transformed.values() for step in found}
    used = {"Transform": names.transformed, "Drop": names.dropped or names.ignored, "Search": names.ignored}
    return {*steps, *(name for name, found in used.items() if found)}


def _transform(targets: tuple[str, ...], steps: tuple[Step, ...]) -> str:
    made = ", ".join(f"{type(step).__name__}({', '.join(map(literal, astuple(step)))})" for step in steps)
    return f"Transform({literal(targets[0] if len(targets) == 1 else targets)}, [{made}])"
