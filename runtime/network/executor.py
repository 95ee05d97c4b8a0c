"""What every executor of a network knows and offers, whether TensorRT runs it or torch does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtllm_port.runtime.network.file import NetworkFile

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


class Executor(ABC):
    """Runs one network. Everything above it (session, generation, verification) is written against this.

    Args:
        network: the file of the network.
        name, inputs, outputs: as below.
        taps: the intermediates that `run` can hand out → the names of their tensors.

    Attributes:
        name: what ran, with versions and device: it goes into every report.
        inputs: the tensors that `run` must be fed.
        outputs: the tensors that `run` returns.
        computed_elsewhere: modules of HF's → the tap that holds them, or None; see `NetworkFile`.
        parameters: the names of the checkpoint's tensors that the network reads.
    """

    def __init__(
        self,
        network: NetworkFile,
        *,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        taps: Mapping[str, str],
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.computed_elsewhere = dict(network.computed_elsewhere)
        self.parameters = network.parameters
        self._taps = dict(taps)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The intermediates that `run` can hand out."""
        return tuple(self._taps)

    @abstractmethod
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
