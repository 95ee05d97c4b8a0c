"""What can be compared: something that turns token ids into logits and hands out its intermediate tensors by name.

K key/value heads, S slots, H head size
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from trtllm_port.layers.weights import TensorSource

CacheLayer = tuple[Tensor, Tensor] | None
"""Keys and values [K, S, H] of a layer of Hugging Face's cache; None where it keeps something else."""

Rows = Sequence[Sequence[int]]
"""Token ids of each row of a batch."""

OnTap = Callable[[str, Tensor], Tensor | None]
"""Is given a tap's name and its value; a tensor that it returns takes the value's place for all that follows."""

Force = Callable[[str, Tensor, Sequence[range]], Tensor]
"""Is given a tap's name, its value for a padded batch, and per row the positions that its tokens stand for."""


class Forced(NamedTuple):
    """Values that take the place of a runner's own.

    Attributes:
        force: gives them.
        taps: names of the taps where it does.
    """

    force: Force
    taps: Collection[str]


class Runner(Protocol):
    """Computes logits for token ids, all positions at once."""

    @property
    def name(self) -> str:
        """What computes, with versions, for the report."""
        ...

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        """Return logits [B, L, V].

        Args:
            ids_BL: token ids.
            on_tap: receives each of `taps`, valid during the call; what it returns takes the tensor's place.
            taps: None: all.
        """
        ...


class PortRunner(Runner, Protocol):
    """A runner with a KV cache."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Every tap it has."""
        ...

    @property
    def weights(self) -> TensorSource:
        """Every parameter it has; a tap without any below it is a helper of the port's own."""
        ...

    @property
    def computed_elsewhere(self) -> Mapping[str, str | None]:
        """Modules of Hugging Face's that it does without → its own module whose output holds them, or None."""
        ...

    @property
    def unread(self) -> tuple[str, ...]:
        """Those of its parameters that it computes nothing with."""
        ...

    @property
    def max_batch_size(self) -> int:
        """Rows that it takes at once."""
        ...

    @property
    def inputs(self) -> Mapping[str, Collection[str]]:
        """In which ways each of its inputs differed so far (see `InputLog.differed`)."""
        ...

    def run_incrementally(
        self, rows: Rows, prefill: Sequence[int], *, forced: Forced | None = None, keep: dict[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Feed a prefix of each row at once, padded on the right, then one token of each row per step.

        Args:
            rows: token ids; every row has the same number of tokens after its prefix.
            prefill: length of each row's prefix.
            forced: values that take the place of its own.
            keep: is given the cache as it is at the end, by the names of the network's inputs.

        Returns:
            Per row, logits [L_b, V] for all of its positions.
        """
        ...

    def run_last(self, prompts: Rows, *, forced: Forced | None = None) -> Tensor:
        """Feed prompts at once and ask for their last tokens' logits alone, as `generate` does.

        Args:
            prompts: token ids of unequal lengths.
            forced: values that take the place of its own.

        Returns:
            Logits [B, 1, V].
        """
        ...

    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        """Return a tap of one row of tokens, and compute nothing behind it.

        Args:
            tap: which.
            ids_L, positions_L: tokens and their positions; these need not fit the KV cache.
        """
        ...
