"""Hugging Face's side of a phase, reduced to what a bundle holds.

N sampled tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.bundle.sketch import Sketch, sampled, sketch, sketched_errors
from trtllm_port.verification.judge.metrics import TokenErrors
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts, LoadHuggingFace
from trtllm_port.verification.sides.recording import row_logits
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import is_input, module_of
from trtllm_port.verification.taps.pairing import ModuleFacts
from trtllm_port.verification.taps.rotary_tables import is_rotary, match_table
from trtllm_port.verification.taps.runner import Runner

LOGIT_BYTES = 16 << 20  # of one set of logits; of a large vocabulary fewer tokens are kept
FEWEST_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class RecordedFloor:
    """The yardstick's error at a tap, by its sketch.

    Attributes:
        error_N: sums of squared differences of the sampled tokens.
        max_error: see `sketched_errors`.
        finite: whether the yardstick is.
    """

    error_N: Tensor = field(repr=False)
    max_error: float
    finite: bool

    def errors(self, reference: Sketch) -> TokenErrors:
        """Return them as the comparison wants them."""
        return TokenErrors(
            error_T=self.error_N,
            reference_T=reference.norms_N,
            value_T=reference.norms_N,
            dot_T=reference.norms_N - self.error_N / 2,
            max_error=self.max_error,
            max_reference=reference.largest,
            elements=1,
            finite=self.finite,
            reference_finite=reference.finite,
        )


@dataclass(frozen=True, kw_only=True)
class RecordedLogits:
    """Logits of both runs at sampled tokens of one sequence, or of several one after another.

    Attributes:
        tokens_N: which.
        reference_NV: in float32.
        yardstick_NV: in its own dtype.
    """

    tokens_N: Tensor = field(repr=False)
    reference_NV: Tensor = field(repr=False)
    yardstick_NV: Tensor = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RecordedPhase:
    """Both runs of Hugging Face in one phase.

    Attributes:
        phase: the precisions.
        order: taps in the order of execution.
        sketches: of the reference, by tap; a rotary table has one per layout that a port may give it.
        floors: of the yardstick, in the same order.
        decisions: outputs that are no values, such as a router's choice of experts.
        prompt, rows: logits; the rows of the batch one after another, None if there are none.
        root: class name of the model.
        modules: facts of every module.
        reference, yardstick: what computed.
    """

    phase: Phase
    order: tuple[str, ...]
    sketches: Mapping[str, tuple[Sketch, ...]] = field(repr=False)
    floors: Mapping[str, tuple[RecordedFloor, ...]] = field(repr=False)
    decisions: tuple[str, ...]
    prompt: RecordedLogits
    rows: RecordedLogits | None
    root: str
    modules: Mapping[str, ModuleFacts] = field(repr=False)
    reference: str
    yardstick: str

    def at(self, tap: str, shape: Sequence[int]) -> tuple[Sketch, RecordedFloor] | None:
        """Return a tap's sketch and floor in a layout of this shape, None if there is none."""
        pairs = zip(self.sketches.get(tap, ()), self.floors.get(tap, ()), strict=False)
        return next((pair for pair in pairs if pair[0].shape == tuple(shape)), None)


def record_phase(phase: Phase, load: LoadHuggingFace, stimulus: Stimulus) -> RecordedPhase:
    """Run reference and yardstick, and keep their sketches and logits."""
    runner = load(phase.reference_dtype)
    facts = HuggingFaceFacts.of(runner)
    sketches: dict[str, tuple[Sketch, ...]] = {}
    floors: dict[str, tuple[RecordedFloor, ...]] = {}
    decisions: list[str] = []

    def layouts(tap: str, tensor: Tensor) -> tuple[Sketch, ...]:
        return tuple(sketch(each) for each in _layouts(tap, tensor, facts.modules))

    def keep(tap: str, tensor: Tensor) -> None:
        sketches[tap] = layouts(tap, tensor)
        if _is_decision(tap, tensor):
            decisions.append(tap)

    def measure(tap: str, tensor: Tensor) -> None:
        pairs = zip(layouts(tap, tensor), sketches.get(tap, ()), strict=False)
        floors[tap] = tuple(_floor(value, expected) for value, expected in pairs if value.shape == expected.shape)

    precise, precise_rows = _run(runner, stimulus, keep)
    reference_name = runner.name
    del runner  # two precisions need not be in memory together
    yardstick = load(phase.dtype)
    rough, rough_rows = _run(yardstick, stimulus, measure)
    return RecordedPhase(
        phase=phase,
        order=tuple(sketches),
        sketches=sketches,
        floors=floors,
        decisions=tuple(decisions),
        prompt=_logits(precise, rough),
        rows=_logits(precise_rows, rough_rows) if precise_rows is not None and rough_rows is not None else None,
        root=facts.root,
        modules=facts.modules,
        reference=reference_name,
        yardstick=yardstick.name,
    )


def _run(runner: Runner, stimulus: Stimulus, on_tap: Callable[[str, Tensor], None]) -> tuple[Tensor, Tensor | None]:
    logits = runner.run(torch.tensor([stimulus.ids]), on_tap=on_tap)[0]
    rows = row_logits(runner, stimulus.rows)
    return logits, torch.cat(rows) if rows else None


def _layouts(tap: str, tensor: Tensor, modules: Mapping[str, ModuleFacts]) -> tuple[Tensor, ...]:
    """Return a tensor in every layout that a port may give it: a rotary table may hold each angle once."""
    if tensor.is_complex() or not tensor.numel() or _is_decision(tap, tensor):
        return ()
    if is_input(tap) or not is_rotary(modules[module_of(tap)].class_name) or tensor.shape[-1] % 2:
        return (tensor,)
    half = match_table(tensor, tensor[..., : tensor.shape[-1] // 2])
    return (tensor,) if half is None else (tensor, half)


def _is_decision(tap: str, tensor: Tensor) -> bool:
    """Whether a module gives whole numbers, as a router its choice: they have no distance that a sketch could keep."""
    return not is_input(tap) and not tensor.is_floating_point() and not tensor.is_complex()


def _floor(value: Sketch, reference: Sketch) -> RecordedFloor:
    errors = sketched_errors(value, reference)
    return RecordedFloor(error_N=errors.error_T, max_error=errors.max_error, finite=errors.finite)


def _logits(reference_TV: Tensor, yardstick_TV: Tensor) -> RecordedLogits:
    fitting = LOGIT_BYTES // (4 * reference_TV.shape[-1])
    tokens_N = sampled(reference_TV.shape[0], max(FEWEST_TOKENS, fitting))
    return RecordedLogits(
        tokens_N=tokens_N,
        reference_NV=reference_TV[tokens_N].to(torch.float32),
        yardstick_NV=yardstick_TV[tokens_N].clone(),
    )
