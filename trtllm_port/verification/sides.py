"""The three sides of a comparison: reference and yardstick by Hugging Face, and the port.

Only the reference's taps are kept; those of the others are compared when they arrive and then dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.verification.hugging_face import HuggingFaceRunner
from trtllm_port.verification.metrics import TokenErrors, token_errors
from trtllm_port.verification.pairs import PairErrors
from trtllm_port.verification.recording import Recording, forced_row_logits
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS, ModuleFacts, input_of, is_input

OWN_TOKENS = 128  # of a large model's prompt: enough to see what error a module makes itself


@dataclass(frozen=True, kw_only=True)
class HuggingFaceFacts:
    """What is kept of Hugging Face's model when its weights are gone.

    Attributes:
        root: class name of the model.
        modules: every module by path.
        vectors: the one-dimensional parameters (gains, biases).
        name: library, version and dtype of the run.
        source: the Python file of the model's class, None if there is none.
        score_peak: how near attention scores came to a soft cap (1 is the cap itself), None where there is no cap.
    """

    root: str
    modules: Mapping[str, ModuleFacts]
    vectors: Mapping[str, Tensor] = field(repr=False)
    name: str
    source: Path | None = None
    score_peak: float | None = None

    @classmethod
    def of(cls, runner: HuggingFaceRunner) -> HuggingFaceFacts:
        """Read them from a loaded model."""
        vectors = runner.vectors()
        return cls(
            root=type(runner.model).__name__,
            modules=runner.modules(),
            vectors={name: p.detach().to("cpu", torch.float64) for name, p in vectors.items()},
            name=runner.name,
            source=runner.source,
        )


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Hugging Face in the port's dtype, as errors against the reference.

    Attributes:
        floors: of every tap, the logits included.
        own_floors: the same where every module ran on the reference's values: the error that it makes itself.
        own_tokens: how many of the first tokens `own_floors` are about; None: all.
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
    own_tokens: int | None = None


def run_yardstick(runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording) -> Yardstick:
    """Run Hugging Face in the port's dtype, end to end and on the reference's values; keep its errors only."""
    routing: dict[str, Tensor] = {}
    own_routing: dict[str, Tensor] = {}
    together = runner.streamed and not recording.routers
    if together:
        floors, own_floors, logits = _both_floors(runner, stimulus, recording)
    else:
        floors, routing, logits = _floors(runner, stimulus, recording, inject=False)
        own_floors, own_routing, _ = _floors(runner, stimulus, recording, inject=True)
    return Yardstick(
        floors=floors,
        own_floors=own_floors,
        routing=routing,
        own_routing=own_routing,
        logits=logits,
        rows=forced_row_logits(runner, stimulus.rows, recording.row_routing),
        name=runner.name,
        own_tokens=OWN_TOKENS if together else None,
    )


def _floors(
    runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording, *, inject: bool
) -> tuple[dict[str, TokenErrors], dict[str, Tensor], Tensor]:
    floors: dict[str, TokenErrors] = {}
    routing: dict[str, Tensor] = {}
    routed = {tap for router in recording.routers for tap in (*router.taps, router.scores)}
    errors_of = PairErrors()

    def compare(tap: str, tensor: Tensor) -> Tensor | None:
        reference = recording.taps.get(tap)
        if reference is None or not comparable(tensor, reference):
            return None
        floors[tap] = errors_of(tensor, reference)
        if tap in routed:
            routing[tap] = tensor.clone()
        wanted = tap in recording.forced or (inject and injectable(tap, reference))
        return placed(reference, tensor) if wanted else None

    logits = runner.run(torch.tensor([stimulus.ids]), on_tap=compare)
    floors[LOGITS] = token_errors(logits, recording.taps[LOGITS])
    return floors, routing, logits[0]


def _both_floors(
    runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording
) -> tuple[dict[str, TokenErrors], dict[str, TokenErrors], Tensor]:
    """Run the prompt twice at once, as a batch of two rows: the second continues with the reference's values.

    What has no rows, such as a table for all of them, is the same in both.
    """
    floors: dict[str, TokenErrors] = {}
    own_floors: dict[str, TokenErrors] = {}
    errors_of = PairErrors()

    def compare(tap: str, tensor: Tensor) -> Tensor | None:
        reference = recording.taps.get(tap)
        if reference is None:
            return None
        first, second = halves(tensor, reference)
        if not comparable(first, reference):
            return None
        floors[tap] = errors_of(first, reference)
        own_floors[tap] = errors_of(*(beginning(each, len(stimulus.ids), OWN_TOKENS) for each in (second, reference)))
        return None if first is second or not injectable(tap, reference) else with_second(tensor, reference)

    logits = runner.run(torch.tensor([stimulus.ids, stimulus.ids]), on_tap=compare)
    compare(LOGITS, logits)
    return floors, own_floors, logits[0]


def halves(tensor: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Split a batch of two rows, whose reference has one, or give the tensor twice if it has no rows."""
    batched = tensor.ndim > reference.ndim or (tensor.ndim == reference.ndim and reference.shape[:1] == (1,))
    if (batched and len(tensor) == 2) or (tensor.numel() == 2 * reference.numel() and len(tensor) % 2 == 0):
        first, second = tensor.chunk(2)
        return first, second
    return tensor, tensor


def with_second(tensor: Tensor, reference: Tensor) -> Tensor:
    """Return a batch of two rows with the reference's values in the second."""
    first, second = tensor.chunk(2)
    return torch.cat([first, placed(reference, second)])


def beginning(tensor: Tensor, length: int, tokens: int) -> Tensor:
    """Return the first tokens of a tap of `length` tokens, whose axis is the first of that size."""
    axis = next((axis for axis, size in enumerate(tensor.shape) if size == length), None)
    return tensor if axis is None else tensor.narrow(axis, 0, min(tokens, length))


def injectable(tap: str, reference: Tensor) -> bool:
    """Whether a tap can take the reference's value: token ids and positions that a module is given stay the port's."""
    return reference.is_floating_point() or not is_input(tap)


def placed(reference: Tensor, tensor: Tensor) -> Tensor:
    """Return the reference's value as the tensor that it replaces."""
    return reference.reshape(tensor.shape).to(tensor, copy=True)


def input_variances(recording: Recording, modules: Mapping[str, ModuleFacts]) -> dict[str, float]:
    """Return, per normalisation with an epsilon, the smallest mean square of any token of its input."""
    found = {}
    for path, facts in modules.items():
        tensor = recording.taps.get(input_of(path))
        if facts.epsilon is not None and tensor is not None and tensor.is_floating_point():
            found[path] = float(tensor.to(torch.float32).square().mean(-1).min())
    return found


def comparable(tensor: Tensor, reference: Tensor) -> bool:
    return tensor.shape == reference.shape and tensor.numel() > 0 and not reference.is_complex()
