"""What every executor of a network offers, whether TensorRT runs it or torch does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

OnTap = Callable[[str, "torch.Tensor"], "torch.Tensor | None"]
"""Is given a tap's name and its value, and may return another value."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a network.

    Attributes:
        name: TensorRT's tensor name.
        dtype: "float32", "int64" and so on.
        shape: one entry per axis, -1 where the size is only known when it runs.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


class Executor(Protocol):
    """Runs one network. Everything above it (session, generation, verification) is written against this.

    Attributes:
        name: what ran, with versions and device: it goes into every report.
        inputs: the tensors that `run` must be fed.
        outputs: the tensors that `run` returns.
        tap_names: the intermediates that `run` can hand out.
        computed_elsewhere: modules of HF's → the tap that holds them, or None; see `NetworkFile`.
        parameters: the names of the checkpoint's tensors that the network reads.
    """

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def tap_names(self) -> tuple[str, ...]: ...

    @property
    def computed_elsewhere(self) -> Mapping[str, str | None]: ...

    @property
    def parameters(self) -> frozenset[str]: ...

    def run(
        self,
        feeds: Mapping[str, torch.Tensor],
        *,
        on_tap: OnTap | None = None,
        taps: Collection[str] = (),
        stop_after: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Execute the network once.

        Args:
            feeds: every input by name. KV caches are updated in place; the `present_*` outputs alias them.
            on_tap: called with each name of `taps` and its tensor, in the order of execution. The tensor's content is
                valid during the call only. A tensor that it returns takes the place of the computed one for all that
                follows; the executors of TensorRT cannot do that and say so. Without it, the taps are part of the
                result.
            taps: names from `tap_names`.
            stop_after: a tap after which nothing more is computed.

        Returns:
            The outputs by name; with `stop_after`, those that were computed before it.

        Raises:
            PortError: an input is missing, unexpected, or of the wrong dtype or shape; a tap is unknown.
        """
        ...
