"""`Parameter`: a place for a weight of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable


class Parameter:
    """A weight of the checkpoint, by shape; its values come when the network is defined.

    Args:
        shape: this rank's shape.
        dtype: None: the config's data type.
        shard: (dimension, parts) when the checkpoint's tensor is cut along a dimension, one part for each rank.
    """

    def __init__(self, shape: Iterable[int], dtype: str | None = None, *, shard: tuple[int, int] | None = None) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.shard = shard

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape before it was cut for the ranks."""
        if self.shard is None:
            return self.shape
        dim, parts = self.shard
        return tuple(size * parts if i == dim else size for i, size in enumerate(self.shape))

    def __repr__(self) -> str:
        return f"Parameter({self.shape}, {self.dtype or 'dtype of the config'})"
