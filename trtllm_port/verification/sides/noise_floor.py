"""The noise floor: what error the yardstick, Hugging Face in the port's dtype, makes against the reference.

Its taps are compared when they arrive and then dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.judge.metrics import TokenErrors, token_errors
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.recording import Recording, forced_row_logits
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS, is_input
from trtllm_port.verification.taps.runner import CacheLayer


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Hugging Face in the port's dtype, as errors against the reference.

    Attributes:
        floors: of every tap, the logits included.
        own_floors: the same where every module ran on the reference's values: the error that it makes itself.
        routing, own_routing: what its routers did in the two runs.
        logits: [L, V] of the long prompt.
        rows: [L_b, V] of each row of the batch.
        name: library, version and dtype.
    """

    floors: Mapping[str, TokenErrors] = field(repr=False)
    own_floors: Mapping[str, TokenErrors] = field(repr=False)
    routing: Mapping[str, Tensor] = field(repr=False)
    own_routing: Mapping[str, Tensor] = field(repr=False)
    logits: Tensor = field(repr=False)
    rows: tuple[Tensor, ...] = field(repr=False)
    name: str


def run_yardstick(
    runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording, cache: list[CacheLayer] | None = None
) -> Yardstick:
    """Run Hugging Face in the port's dtype, end to end and on the reference's values; keep its errors only.

    Args:
        runner: the model.
        stimulus: the input.
        recording: the reference.
        cache: is given what the KV cache holds after the run from end to end; None: none is kept.
    """
    whole, own = Floors(recording), Floors(recording, inject=True)
    logits = whole.measure(runner, stimulus.ids, cache)
    own.measure(runner, stimulus.ids)
    return Yardstick(
        floors=whole.errors,
        own_floors=own.errors,
        routing=whole.routing,
        own_routing=own.routing,
        logits=logits,
        rows=forced_row_logits(runner, stimulus.rows, recording.row_routing),
        name=runner.name,
    )


class Floors:
    """The errors of one run of the yardstick.

    Args:
        recording: the reference.
        inject: let every module work on the reference's values.
        tokens: how many of the first tokens are run; None: all.
        errors: where the errors are put.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        inject: bool = False,
        tokens: int | None = None,
        errors: MutableMapping[str, TokenErrors] | None = None,
    ) -> None:
        self.recording = recording
        self.inject = inject
        self.tokens = tokens
        self.errors: MutableMapping[str, TokenErrors] = {} if errors is None else errors
        self.routing: dict[str, Tensor] = {}
        self._routed = {tap for router in recording.routers for tap in (*router.taps, router.scores)}

    def measure(self, runner: HuggingFaceRunner, ids: Sequence[int], cache: list[CacheLayer] | None = None) -> Tensor:
        """Run, fill `errors`, `routing` and `cache`, and return the logits [L, V]."""
        logits_1LV = runner.run(torch.tensor([ids[: self.tokens]]), on_tap=self._compare, cache=cache)
        self.errors[LOGITS] = token_errors(
            logits_1LV, beginning(self.recording.taps[LOGITS], self.recording.length, self.tokens)
        )
        return logits_1LV[0]

    def _compare(self, tap: str, tensor: Tensor) -> Tensor | None:
        reference = self.recording.taps.get(tap)
        if reference is None:
            return None
        reference = beginning(reference, self.recording.length, self.tokens)
        if not comparable(tensor, reference):
            return None
        self.errors[tap] = self.recording.errors_of(tensor, reference)
        if tap in self._routed:
            self.routing[tap] = tensor.clone()
        held = self.inject and injectable(tap, reference) and not of_some_tokens(reference, self.recording.length)
        wanted = tap in self.recording.forced or held
        return placed(reference, tensor) if wanted else None


def beginning(tensor: Tensor, length: int, tokens: int | None) -> Tensor:
    """Return the first tokens (None: all) of a tap of `length` tokens, whose axis is the first of that size."""
    axis = next((axis for axis, size in enumerate(tensor.shape) if size == length), None)
    return tensor if axis is None or tokens is None else tensor.narrow(axis, 0, min(tokens, length))


def injectable(tap: str, reference: Tensor) -> bool:
    """Whether a tap can take the reference's value: token ids and positions that a module is given stay the port's."""
    return reference.is_floating_point() or not is_input(tap)


def of_some_tokens(reference: Tensor, length: int) -> bool:
    """Whether a tap [T, E] is of some of the tokens alone, as that of an expert in a list is.

    A port computes all experts at once, and has no such tap. Held fast, it would take the rounding of an expert from
    Hugging Face's own error alone.
    """
    return reference.ndim == 2 and 1 < reference.shape[0] < length


def placed(reference: Tensor, tensor: Tensor) -> Tensor:
    """Return the reference's value as the tensor that it replaces."""
    return reference.reshape(tensor.shape).to(tensor, copy=True)


def comparable(tensor: Tensor, reference: Tensor) -> bool:
    return tensor.shape == reference.shape and tensor.numel() > 0 and not reference.is_complex()
