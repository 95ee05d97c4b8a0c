"""What a network asks of modules and their parameters, which are made of it and know it: see `Module`, `Parameter`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol


class ParameterLike(Protocol):
    """A place for a weight.

    Attributes:
        network: the `Network` that its module was bound to last.
        shape: sizes.
    """

    network: Any
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str | None: ...


class ModuleLike(Protocol):
    """A module tree; see `Module` for `computed_elsewhere`."""

    computed_elsewhere: ClassVar[Mapping[str, str | None]]

    def named_modules(self) -> Iterator[tuple[str, ModuleLike]]: ...

    def named_parameters(self) -> Iterator[tuple[str, ParameterLike]]: ...
