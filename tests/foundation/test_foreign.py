"""What comes from outside and is not as it should be ends in one error that names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from trtllm_port.errors import CheckpointError, ConfigError, EnvironmentLackError
from trtllm_port.foundation import foreign
from trtllm_port.foundation.foreign import read_json, reading, typed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'{"a": "\xff"}', "codec can't decode"),
        ("{}".encode("utf-16"), "codec can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
        (b"[1, 2]", "it holds a list, expected an object"),
        (b"null", "it holds null, expected an object"),
    ],
)
def test_files_that_hold_no_json_object(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_json(path, ConfigError, hint="fetch it again")
    assert str(path) in caught.value.message
    assert caught.value.hint == "fetch it again"


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path.name), os.mkfifo],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe, above all, is not waited for."""
    make(tmp_path / "some.json")
    with pytest.raises(ConfigError, match=r"some\.json` (is no regular file|does not exist)"):
        read_json(tmp_path / "some.json", ConfigError)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "some.json").open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(ConfigError, match="8,589,934,592 bytes, more than"):
        read_json(tmp_path / "some.json", ConfigError)


class PanicException(BaseException):
    """As libraries raise it that are written in Rust."""


@pytest.mark.parametrize(
    "error",
    [
        *(AttributeError("x"), ZeroDivisionError(), IndexError("list index out of range"), Exception("untagged enum")),
        *(RecursionError(), MemoryError(), AssertionError(), PanicException("panicked")),
    ],
    ids=repr,
)
def test_whatever_a_library_raises(error: BaseException) -> None:
    said = r"`some\.file` cannot be read: \w"
    with pytest.raises(CheckpointError, match=said), reading("some.file", CheckpointError):
        raise error


def test_what_is_ours_already_and_what_ends_the_program_pass() -> None:
    for error in (ConfigError("mine"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, reading("some.file", CheckpointError):
            raise error
        assert caught.value is error


def test_a_package_that_is_not_there_is_a_lack_of_the_environment() -> None:
    with pytest.raises(EnvironmentLackError, match="needs the package `no_such_package`") as caught:  # noqa: SIM117
        with reading("model/config.json", ConfigError):
            import no_such_package.part  # type: ignore[import-not-found]  # noqa: F401
    assert caught.value.hint == "`pip install no_such_package`"


def test_a_name_that_another_version_of_a_package_has() -> None:
    with pytest.raises(EnvironmentLackError, match=r"another version of `torch` than 2\.") as caught:  # noqa: SIM117
        with reading("model/config.json", ConfigError):
            from torch import no_such_name  # type: ignore[attr-defined]  # noqa: F401
    assert "no_such_name" in caught.value.message


@dataclass(frozen=True)
class Inner:
    """Within `Outer`."""

    size: int = 1


@dataclass(frozen=True)
class Outer:
    """One field of each kind."""

    name: str
    factor: float
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] = (0, "")
    inner: Inner | None = None
    table: Mapping[str, Inner] | None = None


def test_json_as_a_dataclass() -> None:
    text = '{"name": "a", "factor": 1, "sizes": [1, 2], "pair": [3, "b"], "inner": null, "table": {"x": {"size": 4}}}'
    found = typed(Outer, json.loads(text))
    assert found == Outer("a", 1.0, (1, 2), (3, "b"), None, {"x": Inner(4)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 1}, "`name` is a number"),
        ({"factor": True}, "`factor` is true or false"),
        ({"factor": "1"}, "`factor` is a text"),
        ({"sizes": [1.5]}, "`sizes` is a number"),
        ({"sizes": 3}, "`sizes` is a number"),
        ({"pair": [1]}, "`pair` is a list"),
        ({"inner": {"size": None}}, "`size` is null, expected int"),
        ({"inner": {"other": 1}}, "unknown `other`"),
        ({"table": {"x": []}}, "`Inner` is a list"),
        ({"other": 1}, "unknown `other`"),
    ],
)
def test_json_that_is_no_such_dataclass(changes: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        typed(Outer, {"name": "a", "factor": 1.0, **changes})
    with pytest.raises(TypeError, match="missing `factor`"):
        typed(Outer, {"name": "a"})


def test_a_long_message_is_cut() -> None:
    assert len(foreign.reason(ValueError("x " * 10_000))) < 1000
