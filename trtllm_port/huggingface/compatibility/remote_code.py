"""Puts what older releases of transformers had in force while code that comes with a model is imported or run."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from io import TextIOBase
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from trtllm_port.errors import EnvironmentLackError, PortError
from trtllm_port.foundation.foreign import reason
from trtllm_port.huggingface.compatibility import stand_ins
from trtllm_port.huggingface.compatibility.config_classes import prepare_config_class
from trtllm_port.huggingface.compatibility.lost_tensors import sparing
from trtllm_port.huggingface.compatibility.model_classes import prepare_model_class
from trtllm_port.huggingface.compatibility.names import GONE, OLD_ARGUMENTS, OLD_NAMES, OldName
from trtllm_port.huggingface.compatibility.packages import files_beside, importing, note_absent, placeholders

OTHER_RELEASE = "use a model whose code fits the installed `transformers`"
_NAME = re.compile(r"cannot import name '(\w+)'|has no attribute '(\w+)'")
_depth = 0


def is_remote(kind: type[Any]) -> bool:
    """Whether a class comes with a model: transformers imports its file from a package of that name."""
    return kind.__module__.startswith("transformers_modules.")


@contextmanager
def remote_code(allowed: bool = True) -> Iterator[None]:
    """While it lasts, code that comes with a model finds what it expects; what it prints goes to standard error.

    Args:
        allowed: whether such code may run at all; where it may not, nothing changes.
    """
    if not allowed:
        yield
        return
    from transformers import AutoConfig, PreTrainedModel, dynamic_module_utils
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    with (
        old_names(),
        placeholders(),
        _Filled(),
        mock.patch.object(dynamic_module_utils, "check_imports", lambda file: note_absent(Path(file))),
        mock.patch.object(dynamic_module_utils, "get_relative_imports", lambda file: files_beside(Path(file))),
        mock.patch.object(dynamic_module_utils, "get_class_in_module", _loading()),
        mock.patch.object(PreTrainedModel, "_initialize_weights", sparing(PreTrainedModel._initialize_weights)),
        mock.patch.object(AutoConfig, "register", _registering(AutoConfig)),
        mock.patch.object(_BaseAutoModelClass, "register", _registering(_BaseAutoModelClass)),
    ):
        yield


@contextmanager
def old_names() -> Iterator[None]:
    """While it lasts, old names mean what they mean now; see `names.py`. A context within another changes nothing.

    Raises:
        EnvironmentLackError: what runs imports a package that is not there.
    """
    global _depth
    with nullcontext() if _depth else _old_names():
        _depth += 1
        try:
            yield
        except ModuleNotFoundError as error:
            lacking = _lacking("the model's own code", error)
            if lacking is None:
                raise
            raise lacking from error
        finally:
            _depth -= 1


@contextmanager
def _old_names() -> Iterator[None]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies = {} if "default" in ROPE_INIT_FUNCTIONS else {"default": stand_ins.default_frequencies}
    made: list[tuple[Any, str]] = []
    with (
        redirect_stdout(_OnceEach()),
        warnings.catch_warnings(),
        mock.patch.dict(ROPE_INIT_FUNCTIONS, frequencies),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # of what such code calls, which is there still
        try:
            for owner, name, meaning in _missing():
                owner = _module(owner) if isinstance(owner, str) else owner
                setattr(owner, name, meaning)
                made.append((owner, name))
            for owner, name, _, meaning in _renaming():
                setattr(owner, name, meaning)
            yield
        finally:
            for owner, name, original, _ in _renaming():
                setattr(owner, name, original)
            for owner, name in made:
                delattr(owner, name)
                if isinstance(owner, ModuleType) and owner.__spec__ is None:  # one that is gone
                    sys.modules.pop(owner.__name__, None)


@functools.cache
def _missing() -> tuple[tuple[Any, str, Any], ...]:
    """Owner, name and meaning of the old names that the installed release lacks; a missing module by its name."""
    found = []
    for old in OLD_NAMES:
        owner = _owner(old.owner)
        if owner is None or not hasattr(owner, old.name):
            found.append((old.owner if owner is None else owner, old.name, _meaning(old)))
    return tuple(found)


@functools.cache
def _renaming() -> tuple[tuple[Any, str, Any, Any], ...]:
    """Module, name, function, and the function with arguments by their old names, where it does not take these."""
    found = []
    for (path, name), renamed in OLD_ARGUMENTS.items():
        owner = importlib.import_module(path)
        function = getattr(owner, name, None)
        taken = {} if function is None else inspect.signature(function).parameters
        old = {was: now for was, now in renamed.items() if was not in taken and (now is None or now in taken)}
        if function is not None and old:
            found.append((owner, name, function, _by_old_names(function, old)))
    return tuple(found)


def _by_old_names(function: Callable[..., Any], renamed: dict[str, str | None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        named = {renamed.get(name, name): value for name, value in kwargs.items()}
        return function(*args, **{name: value for name, value in named.items() if name is not None})

    return call


def _owner(path: str) -> Any:
    """A module or a class of one; None if the module is gone."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        is_class = name[:1].isupper()
        return getattr(importlib.import_module(module), name) if is_class else None


def _meaning(old: OldName) -> Any:
    module, _, name = old.now.rpartition(".")
    return vars(stand_ins)[name] if not module else getattr(importlib.import_module(module), name)


def _module(name: str) -> ModuleType:
    """A module that is gone, made anew."""
    return sys.modules.setdefault(name, ModuleType(name))


def _loading() -> Callable[..., Any]:
    """transformers' function that loads a class of a file, with classes prepared and errors that name file and line."""
    from transformers import PreTrainedConfig, PreTrainedModel, dynamic_module_utils

    original = dynamic_module_utils.get_class_in_module

    def load(class_name: str, module_path: Any, **options: Any) -> Any:
        file = Path(dynamic_module_utils.HF_MODULES_CACHE) / module_path
        package = ".".join(Path(module_path).with_suffix("").parts[:-1])
        try:
            with importing(file, package), uncompiled(), initialised():
                found = original(class_name, module_path, **options)
        except PortError:
            raise
        except Exception as error:
            raise _told(error, file) from error
        if isinstance(found, type) and issubclass(found, PreTrainedConfig):
            prepare_config_class(found)
        elif isinstance(found, type) and issubclass(found, PreTrainedModel):
            prepare_model_class(found, old_names)
            config_class = getattr(found, "config_class", None)
            if isinstance(config_class, type):
                prepare_config_class(config_class)
        return found

    return load


class _OnceEach(TextIOBase):
    """Writes to standard error, and every line once: models are made again and again."""

    _written: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line not in self._written:
                self._written.add(line)
                sys.stderr.write(f"{line}\n")
        return len(text)


class _Filled(TorchFunctionMode):
    """While active, `torch.empty` gives ones: gains that the checkpoint is to fill are then always the same."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        return made.fill_(1) if func is torch.empty and made.is_floating_point() else made


@contextmanager
def uncompiled() -> Iterator[None]:
    """While it lasts, functions that a file has compiled stay what they are: what they compute is the same.

    What is compiled (`torch.jit.script`) computes behind the back of those who watch the operations of torch.
    """

    def unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
        return function if callable(function) else unchanged  # `@torch.compile` or `@torch.compile(mode=…)`

    with mock.patch.object(torch.jit, "script", unchanged), mock.patch.object(torch, "compile", unchanged):
        yield


@contextmanager
def initialised() -> Iterator[None]:
    """While it lasts, a file finds a `skip_init` that skips nothing: what is not drawn holds whatever memory held."""

    def made(kind: Callable[..., torch.nn.Module], *args: Any, **kwargs: Any) -> torch.nn.Module:
        return kind(*args, **kwargs)

    with mock.patch.object(torch.nn.utils, "skip_init", made):
        yield


def _registering(auto: Any) -> Any:
    """transformers' function that registers a class, for a type that it knows, too: the model's own code wins."""
    register = auto.__dict__["register"].__func__

    def add(*args: Any, exist_ok: bool = False) -> None:
        register(*args, exist_ok=True)

    return (classmethod if isinstance(auto.__dict__["register"], classmethod) else staticmethod)(add)


def _told(error: Exception, file: Path) -> Exception:
    """An error of code that is imported: with its line, and with the release that a missing name was last in."""
    place = place_in(error, file.parent) or file.name
    name = next((word for found in _NAME.finditer(str(error)) for word in found.groups() if word), "")
    lacking = _lacking(f"`{place}`", error) if isinstance(error, ModuleNotFoundError) else None
    if lacking is not None:
        return lacking
    if isinstance(error, ImportError) or name in GONE:
        since = f" (the last release to have it: {GONE[name]})" if name in GONE else ""
        return EnvironmentLackError(
            f"`{place}` was written for another version of `transformers` than {version('transformers')}: "
            f"{reason(error)}{since}",
            hint=OTHER_RELEASE,
        )
    return RuntimeError(f"`{place}` cannot be imported: {reason(error)}")  # for the caller to say of what


def _lacking(who: str, error: ModuleNotFoundError) -> EnvironmentLackError | None:
    """What says which package is to be installed; None where it is a part of transformers that is gone."""
    package = (error.name or "transformers").partition(".")[0]
    if package.startswith("transformers"):
        return None
    return EnvironmentLackError(f"{who} needs the package `{package}`", hint=f"`pip install {package}`")


def place_in(error: BaseException, folder: Path) -> str | None:
    """The innermost line, as `file.py:12`, of the files in a folder that an error came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None
