"""The three sides of a comparison: reference and yardstick by Hugging Face, and the port.

Only the reference's taps are kept; those of the others are compared when they arrive and then dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.verification.compare import NO_SUCH_TAP, TapComparison, compare_tap, failure, judge
from trtllm_port.verification.hugging_face import HuggingFaceRunner
from trtllm_port.verification.metrics import TokenErrors, relative_error_per_token, token_errors
from trtllm_port.verification.recording import Recording, forced_row_logits
from trtllm_port.verification.rotary import is_rotary, match_table
from trtllm_port.verification.routing import Routing, RoutingFacts
from trtllm_port.verification.runners import PortRunner
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS, ModuleFacts, Pairing, input_of, is_input, module_of


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


@dataclass(frozen=True, kw_only=True)
class PortTaps:
    """The port's taps, compared.

    Attributes:
        comparisons: one per tap, also for taps that did not come.
        tokens: relative error per token, float32 [T].
        logits: [L, V].
        skipped: taps that have no comparable counterpart, with the reason.
        routing: how its routers decided.
    """

    comparisons: dict[str, TapComparison]
    tokens: dict[str, Tensor] = field(repr=False)
    logits: Tensor = field(repr=False)
    skipped: dict[str, str]
    routing: tuple[RoutingFacts, ...]


def run_yardstick(runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording) -> Yardstick:
    """Run Hugging Face in the port's dtype, end to end and on the reference's values; keep its errors only."""
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
    )


def _floors(
    runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording, *, inject: bool
) -> tuple[dict[str, TokenErrors], dict[str, Tensor], Tensor]:
    floors: dict[str, TokenErrors] = {}
    routing: dict[str, Tensor] = {}
    routed = {tap for router in recording.routers for tap in (*router.taps, router.scores)}

    def compare(tap: str, tensor: Tensor) -> Tensor | None:
        reference = recording.taps.get(tap)
        if reference is None or not _comparable(tensor, reference):
            return None
        floors[tap] = token_errors(tensor, reference)
        if tap in routed:
            routing[tap] = tensor.clone()
        wanted = tap in recording.forced or (inject and injectable(tap, reference))
        return _placed(reference, tensor) if wanted else None

    logits = runner.run(torch.tensor([stimulus.ids]), on_tap=compare)
    floors[LOGITS] = token_errors(logits, recording.taps[LOGITS])
    return floors, routing, logits[0]


def injectable(tap: str, reference: Tensor) -> bool:
    """Whether a tap can take the reference's value: token ids and positions that a module is given stay the port's."""
    return reference.is_floating_point() or not is_input(tap)


def _placed(reference: Tensor, tensor: Tensor) -> Tensor:
    """The reference's value as the tensor that it replaces."""
    return reference.reshape(tensor.shape).to(tensor, copy=True)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the port's taps are compared with.

    Attributes:
        recording: the reference's taps.
        floors: the yardstick's errors against them.
        routing: the reference's and the yardstick's decisions.
        dtype: of the port; selects the thresholds.
        pairing: the taps to compare.
        modules: Hugging Face's modules, to know rotary tables.
    """

    recording: Recording
    floors: Mapping[str, TokenErrors] = field(repr=False)
    routing: Routing = field(repr=False)
    dtype: str
    pairing: Pairing
    modules: Mapping[str, ModuleFacts] = field(repr=False)

    def counterpart(self, tap: str, tensor: Tensor) -> Tensor | None:
        """Return the reference of a tap in the layout of the port's tensor; None for tables of another kind."""
        reference = self.recording.taps[tap]
        if tensor.shape[-1:] == reference.shape[-1:] and tensor.numel() == reference.numel():
            return reference.reshape(tensor.shape)  # tokens in one dimension or in two
        if tap != LOGITS and not is_input(tap) and is_rotary(self.modules[module_of(tap)].class_name):
            return match_table(reference, tensor)
        return reference


def run_port(port: PortRunner, stimulus: Stimulus, expected: Expected, inject: Callable[[str], bool]) -> PortTaps:
    """Run the port and judge every paired tap against the noise floor.

    Args:
        port: in `expected.dtype`.
        stimulus: the input.
        expected: what to compare with.
        inject: for which taps the reference's value takes the place of the port's once it was compared.
    """
    comparisons: dict[str, TapComparison] = {}
    tokens: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    routing: dict[str, Tensor] = {}
    forced = expected.recording.forced

    def compare(tap: str, tensor: Tensor) -> Tensor | None:
        reference = expected.counterpart(tap, tensor)
        floor = expected.floors.get(tap)
        if reference is None:
            shape = list(expected.recording.taps[tap].shape)
            skipped[tap] = f"a rotary table of shape {list(tensor.shape)}, not comparable with {shape}"
            return None
        if is_input(tap) and tensor.is_floating_point() != reference.is_floating_point():
            skipped[tap] = f"{tensor.dtype} for the port, {reference.dtype} for Hugging Face: not the same argument"
            return None
        if not _comparable(tensor, reference):
            comparisons[tap] = compare_tap(tap, tensor, reference, floor, expected.dtype)
            return None
        if tap in forced:
            routing[tap] = tensor.clone()
            return _placed(reference, tensor)
        errors = token_errors(tensor, reference)
        tokens[tap] = relative_error_per_token(errors).to(torch.float32)
        comparisons[tap] = judge(tap, errors, floor, expected.dtype)
        return _placed(reference, tensor) if inject(tap) and injectable(tap, reference) else None

    pairing = expected.pairing
    # Taps of one tensor see it one after another. What a module gives comes before what others expect of it: a tensor
    # that goes to the wrong place is right there, and wrong here.
    taps = sorted(pairing.paired, key=is_input)
    logits = port.run(torch.tensor([stimulus.ids]), on_tap=compare, taps=taps)
    compare(LOGITS, logits)
    decisions, facts = expected.routing.judge(routing, expected.dtype)
    comparisons |= decisions
    for tap in pairing.paired:
        if tap not in comparisons and tap in routing:
            skipped[tap] = "the port does not tap all that its router returns"
        if tap not in comparisons and tap not in skipped:
            comparisons[tap] = failure(tap, "the port announced this tap and did not deliver it")
    comparisons |= {tap: failure(tap, NO_SUCH_TAP) for tap in pairing.missing}
    comparisons |= {tap: failure(tap, "Hugging Face has no such module") for tap in pairing.extra}
    return PortTaps(comparisons=comparisons, tokens=tokens, logits=logits[0], skipped=skipped, routing=tuple(facts))


def input_variances(recording: Recording, modules: Mapping[str, ModuleFacts]) -> dict[str, float]:
    """Return, per normalisation with an epsilon, the smallest mean square of any token of its input."""
    found = {}
    for path, facts in modules.items():
        tensor = recording.taps.get(input_of(path))
        if facts.epsilon is not None and tensor is not None and tensor.is_floating_point():
            found[path] = float(tensor.to(torch.float32).square().mean(-1).min())
    return found


def _comparable(tensor: Tensor, reference: Tensor) -> bool:
    return tensor.shape == reference.shape and tensor.numel() > 0 and not reference.is_complex()
