"""The boundary to data from outside: what a file, or a library that reads it, raises becomes an error that names it.

Each place that reads what others wrote does so within `reading`, and reads JSON by `read_json`. Nothing else belongs
into such a block: what is raised in it counts as the data's fault, and faults of ours would be told as such.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from trtllm_port.errors import EnvironmentLackError, PortError

LARGEST_JSON = 128 << 20  # bytes; a config has some kB, a network some ten kB for each decoder layer
SHOWN = 600  # characters of a library's message
DataclassT = TypeVar("DataclassT")


@contextmanager
def reading(
    path: Path | str, kind: type[PortError], *, hint: str | None = None, failed: str = "cannot be read"
) -> Iterator[None]:
    """Whatever is raised within the block becomes an error about `path`.

    Args:
        path: what is read; its name begins the message.
        kind: of error.
        hint: what the user can do about it.
        failed: what the message says of it.

    Raises:
        EnvironmentLackError: a library that the data asks for is not there, or of another version.
        PortError: `kind`, for anything else; errors that are ours already pass unchanged.
    """
    try:
        yield
    except PortError:
        raise
    except ImportError as error:
        raise _lacking(path, error) from error
    except Exception as error:
        raise kind(f"`{path}` {failed}: {reason(error)}", hint=hint) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what libraries written in Rust raise
            raise
        raise kind(f"`{path}` {failed}: {reason(error)}", hint=hint) from error


def read_json(
    path: Path, kind: type[PortError], *, hint: str | None = None, failed: str = "cannot be read"
) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        PortError: `kind`: it is absent, no regular file, not UTF-8, too large, nested too deeply, or holds no object.
    """
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise kind(f"`{path}` {what}", hint=hint)
    with reading(path, kind, hint=hint, failed=failed):
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than {LARGEST_JSON:,}")
        return json_object(path.read_bytes())


def json_object(data: bytes, **options: Any) -> dict[str, Any]:
    """Parse bytes that hold a JSON object; ValueError says what they hold else."""
    value = json.loads(data.decode("utf-8"), **options)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_json_kind(value)}, expected an object")
    return value


def reason(error: BaseException) -> str:
    """The beginning of an error's message, in one line; with its kind where that tells more."""
    text = " ".join(str(error).split())
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {text}"
    plain = isinstance(error, OSError) or (type(error) in (ValueError, RuntimeError, Exception) and " " in text)
    return text if plain and text else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _lacking(path: Path | str, error: ImportError) -> EnvironmentLackError:
    """A package that is not there, or a name that the installed version does not have."""
    text = reason(error).removeprefix(f"{type(error).__name__}: ")
    missing = isinstance(error, ModuleNotFoundError) and error.name is not None
    package = str(error.name).partition(".")[0] if error.name else ""
    if missing and not _is_installed(package):
        return EnvironmentLackError(f"`{path}` needs the package `{package}`: {text}", hint=f"`pip install {package}`")
    if error.name:
        return EnvironmentLackError(
            f"`{path}` was written for another version of `{package}` than {_version(package)}: {text}",
            hint=f"use a model whose code fits the installed `{package}`",
        )
    return EnvironmentLackError(f"`{path}` needs a package that is not there: {text}", hint="install what it names")


def _is_installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _version(package: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "the installed one"


def typed(cls: type[DataclassT], values: Any) -> DataclassT:
    """Make a dataclass of what JSON holds: exactly its fields, each of the annotated type; tuples come as lists.

    Raises:
        TypeError: a field is unknown, missing, or of another type; the message names it.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"`{cls.__name__}` is {_json_kind(values)}, expected an object")
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    wrong = [f"unknown `{name}`" for name in values if name not in known]
    wrong += [f"missing `{name}`" for name in sorted(required - set(values))]
    if wrong:
        raise TypeError(f"`{cls.__name__}`: {', '.join(wrong)}")
    return cls(**{name: _converted(value, hints[name], name) for name, value in values.items()})


def _converted(value: Any, hint: Any, name: str) -> Any:
    """A JSON value as its annotation wants it."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _converted(value, next(each for each in arguments if each is not type(None)), name)
    if isinstance(origin, type) and is_dataclass(origin):
        return typed(origin, value)
    if origin is tuple and isinstance(value, list | tuple):
        each = arguments if arguments and arguments[-1] is not Ellipsis else (arguments or (Any,))[:1] * len(value)
        if len(each) == len(value):
            return tuple(_converted(item, kind, name) for item, kind in zip(value, each, strict=True))
    elif origin in (list, dict) and isinstance(value, origin) and not arguments:
        return value
    elif origin is list and isinstance(value, list):
        return [_converted(item, arguments[0], name) for item in value]
    elif isinstance(value, Mapping) and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _converted(item, arguments[1], name) for key, item in value.items()}
    elif origin is float and type(value) in (int, float):
        return float(value)
    elif isinstance(origin, type) and type(value) is origin:
        return value
    raise TypeError(f"`{name}` is {_json_kind(value)}, expected {getattr(hint, '__name__', hint)}")


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    if isinstance(value, dict | list):
        return kinds[type(value)]
    return f"{kinds.get(type(value), 'a number')} ({str(value)[:40]!r})" if value is not None else "null"
