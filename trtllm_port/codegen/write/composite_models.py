"""The files of a model of several parts: under which names they hold the text part, and what else is in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from trtllm_port.codegen.write.weight_names import WeightNames
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.conversion_mapping import ignored_names, tensors_in_files
from trtllm_port.huggingface.loading import find_class, make_whole_on_paper


@dataclass(frozen=True)
class WholeNames:
    """Names in the files of the whole model.

    Attributes:
        architecture: Hugging Face's class of the whole.
        prefixes: beginning of a name in its files → beginning in the files of the text part; longer ones first.
        others: beginnings of the names of all other parts.
        ignored: regular expressions for names that transformers ignores.
    """

    architecture: str
    prefixes: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()


def whole_names(whole: Any, text_class: type[nn.Module], text: Any) -> WholeNames:
    """Compare the whole model with its text part, both without memory for weights.

    Args:
        whole: the config of the whole.
        text_class: Hugging Face's class of the text part.
        text: the config of the text part.

    Raises:
        UnsupportedModelError: the whole does not contain the text part as a module.
    """
    architecture = (whole.architectures or [""])[0]
    whole_class = find_class(architecture)
    if whole_class is text_class:  # made from the text part's config alone, so its files are those of the text part
        return WholeNames(architecture)
    model, part = make_whole_on_paper(whole_class, whole), make_whole_on_paper(text_class, text)
    places = _places(model, part)
    own, small = model.state_dict(), part.state_dict()  # both stay alive: their tensors are told apart by identity
    files = {id(tensor): name for name, tensor in tensors_in_files(model, own).items()}
    stored = {id(tensor): name for name, tensor in tensors_in_files(part, small).items()}
    saved = {id(tensor): name for name, tensor in own.items()}
    prefixes: dict[str, str] = {}
    others: set[str] = set()
    for table in (files, saved):  # as transformers saves it, and as the model itself calls it: it loads both
        pairs = {
            table[id(own[places[name]])]: stored[id(tensor)]
            for name, tensor in small.items()
            if places.get(name) in own and id(own[places[name]]) in table and id(tensor) in stored
        }
        found = _prefixes(pairs)
        others |= {_beginning(name, tuple(found)) for name in table.values() if not name.startswith(tuple(found))}
        prefixes |= found
    prefixes = dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))
    kept = {other for other in others if not any(prefix.startswith(other) for prefix in prefixes)}
    return WholeNames(architecture, prefixes, tuple(sorted(kept)), frozenset(ignored_names(model)))


def add_whole_names(names: WeightNames, whole: WholeNames) -> None:
    """Let a port read the files of the whole model, too; those of the text part alone stay as they are."""
    for prefix, short in whole.prefixes.items():
        if prefix == short:
            continue
        for table in (names.dropped, names.renamed):
            table |= {prefix + key.removeprefix(short): value for key, value in table.items() if _below(key, short)}
        for sources, made in list(names.transformed.items()):
            if all(_below(key, short) for key in sources):
                names.transformed[tuple(prefix + key.removeprefix(short) for key in sources)] = made
        names.renamed[f"{prefix}*"] = f"{short}*"
    reason = f"another part of `{whole.architecture}` than its language model"
    names.dropped |= {f"{beginning}*": reason for beginning in whole.others}
    names.ignored |= whole.ignored


def _places(model: nn.Module, part: nn.Module) -> dict[str, str]:
    """Name of a tensor of the text part → its name in the whole."""
    inside = {type(module): path for path, module in reversed(list(model.named_modules()))}
    base, inner = max(part.named_children(), key=lambda child: sum(p.numel() for p in child[1].parameters()))
    own = model.state_dict()
    if type(part) in inside:
        return {name: f"{inside[type(part)]}.{name}" for name in part.state_dict()}
    if type(inner) not in inside:
        raise UnsupportedModelError(f"`{type(model).__name__}` holds no `{type(inner).__name__}`")
    place = f"{inside[type(inner)]}."
    return {
        name: place + name.removeprefix(f"{base}.") if name.startswith(f"{base}.") else name
        for name in part.state_dict()
        if name.startswith(f"{base}.") or name in own
    }


def _prefixes(pairs: dict[str, str]) -> dict[str, str]:
    """The fewest beginnings that differ: one, if every name of the whole ends with the part's name."""
    single = {found[: len(found) - len(name)] for found, name in pairs.items() if found.endswith(name)}
    if len(single) == 1 and all(found.endswith(name) for found, name in pairs.items()):
        return {single.pop(): ""}
    prefixes = {}
    for found, name in pairs.items():
        a, b = found.split("."), name.split(".")
        while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
            a, b = a[:-1], b[:-1]
        prefixes[".".join(a) + "."] = ".".join(b) + "."
    return dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))


def _below(key: str, short: str) -> bool:
    return key.startswith(short) and not key.startswith("*")


def _beginning(name: str, used: tuple[str, ...]) -> str:
    """The shortest beginning of a name, up to a point, that no used name has."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        beginning = ".".join(parts[:count]) + "."
        if not any(prefix.startswith(beginning) for prefix in used):
            return beginning
    return name
