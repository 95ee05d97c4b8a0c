"""Fields of a stranger's quantization config, each taken with its type; what is odd is collected, not raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import regex

from trtllm_port.errors import CheckpointError

SHOWN = 60  # characters of an odd value
PATIENCE = 0.5  # seconds of processor time for one expression and one name


def shown(value: object) -> str:
    """The beginning of a value, as Python writes it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class Expression:
    """A regular expression of somebody else's, which may take long, but not for ever.

    Raises:
        regex.error: it is none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = regex.compile(text)

    def matches(self, name: str) -> bool:
        """Whether it matches at the start of a name.

        Raises:
            CheckpointError: it takes too long.
        """
        try:
            return self._compiled.match(name, timeout=PATIENCE) is not None
        except TimeoutError:
            raise CheckpointError(
                f"the regular expression {shown(self.text)} takes longer than {PATIENCE} s for {shown(name)}",
                hint="correct it in the model's quantization config",
            ) from None


class Settings:
    """One object of a config.

    Args:
        values: what JSON held in this place.
        path: of the place, for messages.
        problems: where messages go.
    """

    def __init__(self, values: object, path: str, problems: list[str]) -> None:
        self.path, self.problems, self._read = path, problems, set[str]()
        self._children: list[Settings] = []
        if not isinstance(values, dict):
            self.problem(None, f"is {shown(values)}, expected an object")
        self.values: Mapping[str, Any] = values if isinstance(values, dict) else {}

    @property
    def unread(self) -> tuple[str, ...]:
        """Keys that nobody asked for and that are not null, those of children included."""
        own = [f"{self.path}.{key}" for key in self.values.keys() - self._read if self.values[key] is not None]
        return tuple(sorted([*own, *(key for child in self._children for key in child.unread)]))

    def problem(self, key: str | None, text: str) -> None:
        """Collect a message about a field, or about the object."""
        self.problems.append(f"`{self.path}{f'.{key}' if key is not None else ''}` {text}")

    def get(self, key: str) -> Any:
        """A field as it is; None: null, or not there."""
        self._read.add(key)
        return self.values.get(key)

    def has(self, key: str) -> bool:
        """Whether there is a field, be it null."""
        return key in self.values

    def ignore(self, *keys: str) -> None:
        """Fields that say how a checkpoint was made, or for which library: nothing of them is in its values."""
        self._read.update(keys)

    def text(self, key: str, default: str, choices: Sequence[str] | None = None) -> str:
        """A word in lower case, one of the choices."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or (choices is not None and value.lower() not in choices):
            expected = f"one of {', '.join(choices)}" if choices else "a word"
            self.problem(key, f"is {shown(value)}, expected {expected}")
            return default
        return value.lower()

    def integer(self, key: str, default: int, choices: Sequence[int] | None = None) -> int:
        """A whole number, one of the choices; without them at least 1."""
        value = self.get(key)
        if value is None:
            return default
        if type(value) is not int or (value not in choices if choices is not None else value < 1):
            expected = f"one of {', '.join(map(str, choices))}" if choices else "a whole number above 0"
            self.problem(key, f"is {shown(value)}, expected {expected}")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.problem(key, f"is {shown(value)}, expected true or false")
        return value if isinstance(value, bool) else default

    def pair(self, key: str) -> tuple[int, int] | None:
        """Two whole numbers above 0; None: null, or not there."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, list) and len(value) == 2 and all(type(each) is int and each > 0 for each in value):
            return value[0], value[1]
        self.problem(key, f"is {shown(value)}, expected two whole numbers above 0")
        return None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of names; one that is null or not there is empty."""
        value = self.get(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.problem(key, f"is {shown(value)}, expected a list of names")
        return ()

    def patterns(self, key: str | None, texts: Sequence[str], template: str = "{}") -> tuple[Expression, ...]:
        """Regular expressions, each in the place of `{}`."""
        found = []
        for text in texts:
            try:
                found.append(Expression(template.replace("{}", text)))
            except (regex.error, OverflowError, RecursionError) as error:
                self.problem(key, f"has {shown(text)}, which is no regular expression: {error}")
        return tuple(found)

    def child(self, key: str) -> Settings | None:
        """An object in this one; None: null, or not there."""
        value = self.get(key)
        if value is None:
            return None
        self._children.append(Settings(value, f"{self.path}.{key}", self.problems))
        return self._children[-1]
