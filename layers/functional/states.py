"""States of layers that remember a sequence in tensors of fixed size: recurrences, short convolutions.

Shapes: B batch, L new tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.tensor import Tensor
from trtllm_port.layers.functional import arange, cast, select, shape, sum, unsqueeze

if TYPE_CHECKING:
    from trtllm_port.layers.functional.cache import KVCache


class State:
    """One tensor that a layer keeps from call to call, zero before the first token: made by `KVCache.state`.

    A layer reads it once and replaces it once: the network input `past_states.{name}`, the output
    `present_states.{name}`. Unlike a slot of the KV cache a state is never overwritten by position, so padding tokens
    must not change it. They are those whose position does not follow from the row's first one: the runtime gives all
    padding of a row the position of its last token.
    """

    def __init__(self, cache: KVCache, name: str) -> None:
        self.cache = cache
        self.name = name
        self.network = cache.network

    def past(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """What the tokens so far left behind.

        Args:
            shape: of one row; every size is known.
            dtype: its data type.

        Returns:
            [B, *shape].
        """
        if min(shape, default=1) < 0:
            raise NetworkError(f"{self.network.where()}a state needs known sizes, got {shape}")
        return self.network.add_input(f"past_states.{self.name}", dtype, (-1, *shape), ("batch_size",))

    def keep(self, present: Tensor) -> None:
        """Replace the state, for the tokens to come."""
        self.cache.keep(f"present_states.{self.name}", present)

    def is_token(self) -> Tensor:
        """Which tokens are no padding, bool [B, L]: those whose positions count on from the row's first one."""
        position_ids = self.cache.position_ids

        def make() -> Tensor:
            first_B1 = unsqueeze(select(position_ids, 1, 0), 1)
            return position_ids == first_B1 + unsqueeze(arange(shape(position_ids, 1), like=position_ids), 0)

        return self.network.shared(("is_token", position_ids.name), make)

    def token_counts(self) -> Tensor:
        """How many of a row's new tokens are no padding, int64 [B, 1]."""
        is_token_BL = self.is_token()
        return self.network.shared(
            ("token_counts", self.cache.position_ids.name), lambda: sum(cast(is_token_BL, "int64"), 1, keepdim=True)
        )
