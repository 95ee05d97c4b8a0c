"""What a network asks of modules and their parameters, which are made of it and know it: see `Module`, `Parameter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import torch


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


class NetworkLike(Protocol):
    """A network that is being defined; see `Network`. What its methods return are its tensors.

    Attributes:
        trt, definition, dtype, weights: as there.
    """

    trt: Any
    definition: Any
    dtype: str
    weights: Mapping[str, torch.Tensor]

    def constant(self, value: torch.Tensor) -> Any: ...

    def checkpoint_constant(self, name: str, value: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> Any: ...

    def add(self, operation: str, layer: Any) -> Any: ...

    def tap(self, name: str, tensor: Any) -> None: ...

    def shared(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any: ...

    def trt_type(self, dtype: str) -> Any: ...
