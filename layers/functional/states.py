"""States of layers that remember a sequence in tensors of fixed size: recurrences, short convolutions.

Shapes: B batch, L new tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.operations.creation import arange
from trtllm_port.layers.operations.reduction import sum
from trtllm_port.layers.operations.shaping import shape, unsqueeze
from trtllm_port.layers.operations.slicing import select
from trtllm_port.layers.operations.unary import cast


class State:
    """One tensor that a layer keeps from call to call, zero before the first token: made by `KVCache.state`.

    A layer reads it once and replaces it once: the network input `past_states.{name}`, the output
    `present_states.{name}`. Unlike a slot of the KV cache a state is never overwritten by position, so padding tokens
    must not change it. They are those whose position does not follow from the row's first one: the runtime gives all
    padding of a row the position of its last token.

    Args:
        position_ids: [B, L] int64, of the new tokens.
        name: of the state among all of the network's.
        keep_as: makes a tensor the network output of a name.
    """

    def __init__(self, position_ids: Tensor, name: str, keep_as: Callable[[str, Tensor], None]) -> None:
        self.position_ids = position_ids
        self.name = name
        self.network = position_ids.network
        self._keep_as = keep_as

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
        self._keep_as(f"present_states.{self.name}", present)

    def is_token(self) -> Tensor:
        """Which tokens are no padding, bool [B, L]: those whose positions count on from the row's first one."""
        position_ids = self.position_ids

        def make() -> Tensor:
            first_B1 = unsqueeze(select(position_ids, 1, 0), 1)
            return position_ids == first_B1 + unsqueeze(arange(shape(position_ids, 1), like=position_ids), 0)

        return self.network.shared(("is_token", position_ids.name), make)

    def token_counts(self) -> Tensor:
        """How many of a row's new tokens are no padding, int64 [B, 1]."""
        is_token_BL = self.is_token()
        return self.network.shared(
            ("token_counts", self.position_ids.name), lambda: sum(cast(is_token_BL, "int64"), 1, keepdim=True)
        )
