"""A port's `model.py` as a few subclasses of another port's: what that one has already is taken from there.

Classes are compared as Python reads them, so it does not matter who wrote the other port, nor how its classes are
called. A class that says the same is imported; one that says almost the same becomes a subclass with what differs; any
other stands as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.foreign import reading
from trtllm_port.porting.class_texts import ClassText, ModelFile
from trtllm_port.porting.subclasses import subclass
from trtllm_port.registry.inheritance import packages_used

if TYPE_CHECKING:
    from trtllm_port.codegen import PortSource

AUTO = "auto"
WORTH = 0.7  # of the lines that a port has on its own


def inherited(model: str, config: str, bases: Mapping[str, str], *, like: str) -> str | None:
    """Return a port's `model.py` in terms of another port's classes; None where they have none in common.

    Args:
        model, config: the text of the port's own `model.py` and `config.py`.
        bases: package → text of `model.py`: of the other port, and of those that it takes classes from.
        like: the name of the other port.
    """
    from trtllm_port.codegen.ir.formatting import formatted

    own = ModelFile.of(model)
    fields = own.config_fields(config)
    theirs = _Theirs(own, {package: ModelFile.of(text) for package, text in bases.items()})
    same: dict[str, str] = {}  # our name → theirs
    written: list[str] = []
    for ours in own.classes.values():
        equal = theirs.equal(ours, same)
        if equal is not None:
            same[ours.name] = equal
        else:
            written.append(theirs.derived(ours, same, fields) or ours.text(same))
    text = "\n\n\n".join(written)
    taken = {name: package for name, package in theirs.taken.items() if _has_word(text, name)}
    if not taken:
        return None
    return formatted("\n".join([_docstring(own, like), "", *_imports(own, taken, text), "", "", text, ""]))


class _Theirs:
    """The classes of the other ports.

    Attributes:
        taken: those that were asked for → their packages.
    """

    def __init__(self, own: ModelFile, files: Mapping[str, ModelFile]) -> None:
        self.own, self.files = own, files
        self.taken: dict[str, str] = {}

    def equal(self, ours: ClassText, same: Mapping[str, str]) -> str | None:
        """The name of a class that says the same."""
        for package, file, other in self._usable(ours):
            names = {**same, self.own.config_class: file.config_class, ours.name: other.name}
            if ours.content(names) == other.content({}) and self.own.means_the_same(file, ours.node, other.node):
                self.taken[other.name] = package
                return other.name
        return None

    def derived(self, ours: ClassText, same: Mapping[str, str], fields: frozenset[str]) -> str | None:
        """The shortest subclass that is shorter than the class itself."""
        best, base, fewest = None, ("", ""), len(ours.text(same).splitlines())
        for package, file, other in self._usable(ours):
            text = subclass(self.own, ours, file, other, same, fields)
            if text is not None and len(text.splitlines()) < fewest:
                best, base, fewest = text, (other.name, package), len(text.splitlines())
        if best is not None:
            self.taken[base[0]] = base[1]
        return best

    def _usable(self, ours: ClassText) -> Iterator[tuple[str, ModelFile, ClassText]]:
        """Classes whose names would not mean something else in our file: of ours, or of another package."""
        for package, file in self.files.items():
            for name, other in file.classes.items():
                if self.taken.get(name, package) == package and (name == ours.name or name not in self.own.classes):
                    yield package, file, other


def _docstring(own: ModelFile, like: str) -> str:
    first, _, rest = own.docstring.partition("\n")
    first = first.rstrip(".") + f", as port `{like}` has it but for this."
    rest = rest.replace("`trtllm-port new`", f"`trtllm-port new --like {like}`")
    return '"""' + first + "\n" + rest + '"""'


def _imports(own: ModelFile, taken: Mapping[str, str], text: str) -> list[str]:
    lines = ["from __future__ import annotations", ""]
    for module, names in own.imports.items():
        used = [name for name in names if _has_word(text, name)]
        if module == "math" and used:
            lines += ["import math", ""]
        elif used and not module.startswith("."):
            lines += [f"from {module} import {', '.join(used)}", ""]
    for package in dict.fromkeys(taken.values()):
        names = sorted(name for name in taken if taken[name] == package)
        lines.append(f"from ..{package}.model import {', '.join(names)}")
    for module, found in own.imports.items():
        used = [name for name in found if _has_word(text, name)]
        if used and module.startswith("."):
            lines.append(f"from {module} import {', '.join(used)}")
    return lines


def _has_word(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def taken_over(source: PortSource, workspace: Path, like: str) -> PortSource:
    """Return a port with what another one of the workspace has taken from there.

    Args:
        source: of the port, on its own.
        workspace: of the other port.
        like: its name; `AUTO`: the one that leaves the fewest lines, or none where each leaves almost all.

    Raises:
        WorkspaceError: see `base_texts`; or the two have nothing in common.
    """
    if like == AUTO:
        found = most_alike(source, workspace)
        return source if found is None else _with(source, workspace, *found)
    text = inherited(source.files["model.py"], source.files["config.py"], base_texts(workspace, like), like=like)
    if text is None:
        raise WorkspaceError(f"port `{source.name}` has no class in common with port `{like}`")
    return _with(source, workspace, like, text)


def require_base(workspace: Path, name: str, like: str | None) -> None:
    """Refuse, before a port is made, what it cannot be like.

    Raises:
        WorkspaceError: see `base_texts`; or the other port takes classes from this one.
    """
    if like not in (None, AUTO) and name in base_texts(workspace, str(like)):
        what = "is the port itself" if like == name else f"takes classes from port `{name}`"
        raise WorkspaceError(f"port `{name}` cannot be like `{like}`, which {what}")


def most_alike(source: PortSource, workspace: Path) -> tuple[str, str] | None:
    """Return the port of a workspace that leaves the fewest lines, and these; None where none leaves few (`WORTH`)."""
    model, config = source.files["model.py"], source.files["config.py"]
    best, fewest = None, WORTH * len(model.splitlines())
    for name in port_names(workspace):
        try:
            texts = base_texts(workspace, name)
        except WorkspaceError:  # somebody is working on that port: it is no candidate
            continue
        text = None if source.name in texts else inherited(model, config, texts, like=name)
        if text is not None and len(text.splitlines()) <= fewest:
            best, fewest = (name, text), len(text.splitlines()) - 1
    return best


def _with(source: PortSource, workspace: Path, like: str, text: str) -> PortSource:
    packages = packages_used(workspace / "models" / like)
    return replace(source, files={**source.files, "model.py": text}, packages=packages, like=like)


def base_texts(workspace: Path, name: str) -> dict[str, str]:
    """Package → text of `model.py`: of a port of a workspace, and of those that it takes classes from.

    Raises:
        WorkspaceError: the workspace has no such port, or one of the files is missing or no Python.
    """
    known = port_names(workspace)
    if name not in known:
        have = f"it has {', '.join(f'`{each}`' for each in known)}" if known else "it has none"
        raise WorkspaceError(f"workspace `{workspace}` has no port `{name}`: {have}")
    paths = [package / "model.py" for package in packages_used(workspace / "models" / name)]
    texts = {}
    for path in paths:
        with reading(path, WorkspaceError, hint="mend it, or name another port", failed="cannot be parsed"):
            texts[path.parent.name] = path.read_text(encoding="utf-8")
            ModelFile.of(texts[path.parent.name])
    return texts


def port_names(workspace: Path) -> list[str]:
    """The names of the ports that a workspace has."""
    return sorted(path.parent.name for path in (workspace / "models").glob("*/model.py"))
