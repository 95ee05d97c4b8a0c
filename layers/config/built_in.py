"""What a port's config may say of a value that is built in, beside the value itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False, repr=False)
class Every:
    """In `FIXED`: a list, of any length, whose elements all have this value (say, one for each layer)."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | tuple) and all(item == self.value for item in other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """As messages show it."""
        return f"a list of {self.value!r} in every place"


class OneOf:
    """In `FIXED`: any of some values, for which the port was proven."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return other in self.values

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """As messages show it."""
        return " or ".join(map(repr, self.values))


def parameter_sets(value: Any) -> list[dict[str, Any]]:
    """The parameters in a dict: it alone, or those by the type of a layer that it holds."""
    if not isinstance(value, dict):
        return []
    inner = [item for item in value.values() if isinstance(item, dict)]
    return inner if inner and len(inner) == len(value) else [value]
