"""`Mapping`: how a model is cut over GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from trtllm_port.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Tensor parallelism cuts every layer, pipeline parallelism the sequence of layers; `rank` is this part's number.

    Ranks are numbered with the tensor-parallel part first: rank = pp_rank * tp_size + tp_rank.
    """

    tp_size: int = 1
    pp_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.tp_size < 1 or self.pp_size < 1:
            raise ConfigError(f"tp_size is {self.tp_size} and pp_size is {self.pp_size}, expected at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank is {self.rank}, expected 0 to {self.world_size - 1}")

    @property
    def world_size(self) -> int:
        return self.tp_size * self.pp_size

    @property
    def tp_rank(self) -> int:
        return self.rank % self.tp_size

    @property
    def pp_rank(self) -> int:
        return self.rank // self.tp_size

    @property
    def tp_group(self) -> list[int]:
        """The ranks that hold the other parts of this rank's layers, its own included."""
        first = self.pp_rank * self.tp_size
        return list(range(first, first + self.tp_size))
