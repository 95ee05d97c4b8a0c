"""What the record has to know of states while it is made: which one the running module asked for, and stored."""

from __future__ import annotations

from torch import Tensor

from trtllm_port.errors import UnsupportedModelError

HINT = "`trtllm-port new --blank NAME` writes a port to fill in by hand"


class StateLog:
    """States asked for or stored, until the recurrence or convolution that they belong to is recorded."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}  # states of one kind, by layer
        self.read: tuple[int, int] | None = None  # (layer, number), by the recurrence to come
        self.recorded: tuple[int, int] | None = None  # by a recurrence whose last state is not stored yet
        self.in_modules = False  # the model keeps states as attributes of its modules
        self.convolved: dict[int, tuple[Tensor, int, int]] = {}  # id of a tensor → the tensor, layer, number

    def store(self, layer: int, number: int) -> None:
        """A recurrent state is stored; UnsupportedModelError if no recorded recurrence gave it."""
        if self.recorded != (layer, number):
            raise UnsupportedModelError(
                f"layer {layer} keeps a state that follows from no recurrence known here",
                hint=HINT,
            )
        self.recorded = None

    def check_empty(self) -> None:
        """UnsupportedModelError if tokens were stored for a convolution that was not recorded."""
        for _, layer, _ in self.convolved.values():
            raise UnsupportedModelError(
                f"layer {layer} stores tokens for something that is no convolution known here",
                hint=HINT,
            )
