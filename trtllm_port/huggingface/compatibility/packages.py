"""Packages that a model's own code imports and that are absent: an error where one of them is used, and not before.

Much of what such files import serves training, quantization or a faster kernel. What is imported within `try` is left
alone: there the code itself says what to do without it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from trtllm_port.errors import EnvironmentLackError


class _Use(type):
    """The class of everything that an absent package would hold; it can be imported, inherited from, and asked for."""

    full_name: str

    def __call__(cls, *_: Any, **__: Any) -> Any:
        frame = sys._getframe(1)
        package = cls.full_name.partition(".")[0]
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        raise EnvironmentLackError(
            f"`{place}` calls `{cls.full_name}`, and the package `{package}` is not installed",
            hint=f"`pip install {package}`",
        )

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or name == "full_name":
            raise AttributeError(name)
        return _placeholder(f"{cls.full_name}.{name}")


def _placeholder(full_name: str) -> type:
    return _Use(full_name.rpartition(".")[2], (), {"full_name": full_name})


class _AbsentModule(ModuleType):
    """A package that is absent, or a module of one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _placeholder(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder):
    """Finds what nothing else finds: files beside the one that imports them, and the placeholders of packages.

    Attributes:
        absent: names of packages for which there may be placeholders.
        beside: the folder and the package of the file that is being imported.
    """

    def __init__(self) -> None:
        self.absent: set[str] = set()
        self.beside: tuple[Path, str] | None = None
        self.made: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if self.beside is not None and "." not in name and (self.beside[0] / f"{name}.py").is_file():
            self.made.add(name)
            return ModuleSpec(name, _Beside(f"{self.beside[1]}.{name}"))
        if name.partition(".")[0] in self.absent and not _is_guarded(sys._getframe(1)):
            self.made.add(name)
            return ModuleSpec(name, _Placeholders(), is_package=True)
        return None


class _Placeholders(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Beside(Loader):
    """Loads `import x`, where `x.py` is beside the file, as `from . import x`: one module, whoever asks for it."""

    def __init__(self, full_name: str) -> None:
        self.full_name = full_name
        self.own_spec: Any = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.full_name)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec  # importing it by the short name has replaced it


_finder = _Finder()


@contextmanager
def placeholders() -> Iterator[None]:
    """While it lasts, packages that `note_absent` has found absent can be imported; afterwards they are forgotten."""
    sys.meta_path.append(_finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_finder)
        for name in _finder.made:
            sys.modules.pop(name, None)
        _finder.made.clear()


@contextmanager
def importing(file: Path, package: str) -> Iterator[None]:
    """While it lasts, files beside one, of a package, can be imported as if they were on the path."""
    before, _finder.beside = _finder.beside, (file.parent, package)
    try:
        yield
    finally:
        _finder.beside = before


def note_absent(file: Path) -> list[str]:
    """The files, without `.py`, that a file needs beside it; absent packages that it imports are noted.

    Takes the place of a function of transformers that refuses a file for every package that it could not do without.
    """
    beside = files_beside(file)
    imported = set(_imported(ast.parse(file.read_text(encoding="utf-8"))))
    _finder.absent |= {name for name in imported - {*beside} if not _is_installed(name)}
    return beside


def files_beside(file: Path) -> list[str]:
    """The files, without `.py`, that a file imports from its own folder: relatively, or as if they were on the path.

    Takes the place of a function of transformers that knows of the former only.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    plain = (name for name in _imported(tree) if (file.parent / f"{name}.py").is_file() and not _is_installed(name))
    relative = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1)
    names = (node.module or alias.name for node in relative for alias in node.names)
    return list(dict.fromkeys((*sorted(plain), *names)))


def _is_guarded(frame: FrameType | None) -> bool:
    """Whether the line that imports something is within a `try`."""
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_lineno in _guarded_lines(frame.f_code.co_filename)


@cache
def _guarded_lines(file: str) -> frozenset[int]:
    tree = ast.parse(Path(file).read_text(encoding="utf-8")) if Path(file).is_file() else ast.Module([], [])
    tried = (part for node in ast.walk(tree) if isinstance(node, ast.Try) for part in node.body)
    return frozenset(line for part in tried for line in range(part.lineno, (part.end_lineno or part.lineno) + 1))


def _imported(tree: ast.AST) -> Iterator[str]:
    """The top-level packages that a piece of code imports, relative imports left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return not isinstance(sys.modules[name], _AbsentModule)
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
