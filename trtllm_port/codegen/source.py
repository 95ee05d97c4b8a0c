"""The files of a port: `model.py`, `config.py`, `convert.py`."""

from __future__ import annotations

import re
from typing import Any, get_args, get_type_hints

from trtllm_port.codegen.classes import ClassText
from trtllm_port.codegen.formatting import indent, literal, wrap
from trtllm_port.codegen.ledger import Ledger

LAYERS = "trtllm_port.layers"
BASE_FIELDS = frozenset(("vocab_size", "tie_word_embeddings"))


def model_file(classes: list[ClassText], *, title: str, config_class: str, origin: str) -> str:
    """`model.py`: the classes, inner ones first."""
    imports = sorted(set().union(*(text.imports for text in classes)), key=_import_order)
    lines = [
        f'"""{title}: the network of `{classes[-1].name}`.',
        "",
        f"Written by `trtllm-port new` from {origin}; names and structure are those of that file.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *_import(LAYERS, imports),
        "",
        f"from .config import {config_class}",
        "from .convert import WEIGHT_MAP",
    ]
    for text in classes:
        lines += ["", "", *text.lines]
    return "\n".join(lines) + "\n"


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions: the order of the project's linter."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def _import(module: str, names: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= 120:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def config_file(ledger: Ledger, *, config_class: str, title: str, values: dict[str, Any], hf_config: Any) -> str:
    """`config.py`: the fields that the port uses and the values that it has built in."""
    fields = sorted(set(ledger.used) - BASE_FIELDS, key=list(values).index)
    types = {name: field_type(values[name], name, hf_config) for name in fields}
    typing = ["Any"] if any("Any" in text for text in types.values()) else []
    typing += ["ClassVar"] if ledger.fixed or not typing else []
    fixed = ledger.fixed
    imports = ["PretrainedConfig", *(["Every"] if any("Every(" in fixed_text(v) for v in fixed.values()) else [])]
    lines = [f'"""{title}: what the port takes from Hugging Face\'s `config.json`."""', "", "from __future__ import annotations", ""]
    lines.append("from dataclasses import dataclass")
    names = sorted({*(["Any", "ClassVar"] if fixed else []), *typing} - (set() if fixed else {"ClassVar"}))
    if names:
        lines.append(f"from typing import {', '.join(names)}")
    lines += ["", *_import(LAYERS, sorted(imports, key=_import_order)), "", ""]
    lines += ["@dataclass(frozen=True, kw_only=True)", f"class {config_class}(PretrainedConfig):"]
    lines += [f'    """The fields have the names and meanings of `{type(hf_config).__name__}`; in `FIXED` is what the port has built in."""' if fixed else f'    """The fields have the names and meanings of `{type(hf_config).__name__}`."""']
    if fixed:
        lines += ["", "    FIXED: ClassVar[dict[str, Any]] = {"]
        lines += [f"        {literal(key)}: {fixed_text(value)}," for key, value in sorted(fixed.items())]
        lines.append("    }")
    if fields:
        lines += ["", *(f"    {name}: {types[name]}" for name in fields)]
    return "\n".join(lines) + "\n"


def fixed_text(value: Any) -> str:
    """A built-in value; of a list with one value per layer, that value, for any number of layers."""
    if isinstance(value, list) and len(value) > 1 and all(item == value[0] for item in value):
        return f"Every({literal(value[0])})"
    return literal(value)


def field_type(value: Any, name: str, hf_config: Any) -> str:
    """The annotation of a config field."""
    if isinstance(value, bool | str):
        text = type(value).__name__
    elif isinstance(value, dict):
        text = "dict[str, Any]"
    elif isinstance(value, list):
        kinds = sorted({type(item).__name__ for item in value})
        text = f"tuple[{' | '.join(kinds)}, ...]"
    elif value is None:
        text = "int"
    else:
        text = type(value).__name__
    return f"{text} | None" if value is None or _may_be_none(name, hf_config) else text


def _may_be_none(name: str, hf_config: Any) -> bool:
    return False


def convert_file(dropped: dict[str, str], *, title: str, architecture: str) -> str:
    """`convert.py`: the exceptions between HF's tensor names and the port's parameter names."""
    lines = [f'"""{title}: from Hugging Face\'s weights to the port\'s.', ""]
    lines += [
        f"The parameters of the port have the names that `{architecture}` gives them; only exceptions are listed.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        f"from {LAYERS} import {'Drop, ' if dropped else ''}WeightMap",
        "",
    ]
    if not dropped:
        lines.append("WEIGHT_MAP: WeightMap = {}")
    else:
        lines.append("WEIGHT_MAP: WeightMap = {")
        for pattern, reason in sorted(dropped.items()):
            lines += indent(wrap(f"{literal(pattern)}: Drop({literal(reason)}),", 4))
        lines.append("}")
    return "\n".join(lines) + "\n"


def class_title(architecture: str) -> str:
    """A readable name: `Qwen2ForCausalLM` → `Qwen2`."""
    return re.sub(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", architecture)


__all__ = ["class_title", "config_file", "convert_file", "get_args", "get_type_hints", "model_file"]
