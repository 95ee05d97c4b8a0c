"""`Parameter`: a place for a weight of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trtllm_port.layers.definition.network import Network, Operand, Tensor


class Parameter:
    """A weight of the checkpoint, by shape; its values come when the network is defined.

    While its module's network is being defined, it has a tensor's methods and operators.

    Args:
        shape: this rank's shape.
        dtype: None: the config's data type.
        shard: (dimension, parts) when the checkpoint's tensor is cut along a dimension, one part for each rank.

    Attributes:
        network: the one that its module was bound to last.
    """

    network: Network | None = None

    def __init__(self, shape: Iterable[int], dtype: str | None = None, *, shard: tuple[int, int] | None = None) -> None:
        self.shape = tuple(shape)
        self._dtype = dtype
        self.shard = shard

    @property
    def dtype(self) -> str | None:
        """None: the config's, which a network knows."""
        return self._dtype if self._dtype is not None or self.network is None else self.network.dtype

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape before it was cut for the ranks."""
        if self.shard is None:
            return self.shape
        dim, parts = self.shard
        return tuple(size * parts if i == dim else size for i, size in enumerate(self.shape))

    def __repr__(self) -> str:
        return f"Parameter({self.shape}, {self._dtype or 'dtype of the config'})"

    def tensor(self) -> Tensor:
        """The parameter as a tensor of the network that is being defined; AttributeError if there is none."""
        if self.network is None:
            raise AttributeError("a parameter is a tensor only while the network of its module is being defined")
        return self.network.parameter(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor(), name)

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor()[index]

    def __neg__(self) -> Tensor:
        return -self.tensor()

    def __add__(self, other: Operand) -> Tensor:
        return self.tensor() + other

    def __radd__(self, other: Operand) -> Tensor:
        return other + self.tensor()

    def __sub__(self, other: Operand) -> Tensor:
        return self.tensor() - other

    def __rsub__(self, other: Operand) -> Tensor:
        return other - self.tensor()

    def __mul__(self, other: Operand) -> Tensor:
        return self.tensor() * other

    def __rmul__(self, other: Operand) -> Tensor:
        return other * self.tensor()

    def __truediv__(self, other: Operand) -> Tensor:
        return self.tensor() / other

    def __rtruediv__(self, other: Operand) -> Tensor:
        return other / self.tensor()

    def __matmul__(self, other: Operand) -> Tensor:
        return self.tensor() @ other

    def __rmatmul__(self, other: Operand) -> Tensor:
        return other @ self.tensor()

    def __pow__(self, other: Operand) -> Tensor:
        return self.tensor() ** other

    def __rpow__(self, other: Operand) -> Tensor:
        return other ** self.tensor()
