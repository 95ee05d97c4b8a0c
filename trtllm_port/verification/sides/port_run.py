"""The port's side of a comparison: it runs, and every paired tap is judged against the noise floor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.judge.metrics import TokenErrors, relative_error_per_token
from trtllm_port.verification.judge.routing import Routing, RoutingFacts
from trtllm_port.verification.judge.tap_errors import NO_SUCH_TAP, TapComparison, compare_tap, failure, judge
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.noise_floor import beginning, comparable, injectable, placed
from trtllm_port.verification.sides.recording import Recording
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import LOGITS, is_input, module_of
from trtllm_port.verification.taps.pairing import ModuleFacts, Pairing
from trtllm_port.verification.taps.rotary_tables import is_rotary, match_table
from trtllm_port.verification.taps.routers import chooses_slots
from trtllm_port.verification.taps.runner import PortRunner


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
        tokens: how many of the first tokens are compared; None: all.
    """

    recording: Recording
    floors: Mapping[str, TokenErrors] = field(repr=False)
    routing: Routing = field(repr=False)
    dtype: str
    pairing: Pairing
    modules: Mapping[str, ModuleFacts] = field(repr=False)
    tokens: int | None = None

    def counterpart(self, tap: str, tensor: Tensor) -> Tensor | None:
        """Return the reference of a tap in the layout of the port's tensor; None for tables of another kind."""
        reference = beginning(self.recording.taps[tap], self.recording.length, self.tokens)
        if tensor.shape[-1:] == reference.shape[-1:] and tensor.numel() == reference.numel():
            return reference.reshape(tensor.shape)  # tokens in one dimension or in two
        if tap != LOGITS and not is_input(tap) and is_rotary(self.modules[module_of(tap)].class_name):
            return match_table(reference, tensor)
        return reference


def nowhere(_tap: str) -> bool:
    """Inject nothing: a run from end to end."""
    return False


def everywhere(_tap: str) -> bool:
    """Inject every tap: each module works on Hugging Face's values."""
    return True


class Judge:
    """Compares the taps of one run.

    Args:
        expected: with what.
        inject: for which taps the reference's value takes the place of the port's once it was compared.
    """

    def __init__(self, expected: Expected, inject: Callable[[str], bool] = nowhere) -> None:
        self.expected = expected
        self.inject = inject
        self.comparisons: dict[str, TapComparison] = {}
        self.tokens: dict[str, Tensor] = {}
        self.skipped: dict[str, str] = {}
        self.routing: dict[str, Tensor] = {}
        self.scores = {router.scores for router in expected.recording.routers}

    def on_tap(self, tap: str, tensor: Tensor) -> Tensor | None:
        """Compare a tap; return what takes its place, if anything does."""
        reference = self._compare(tap, tensor)
        if reference is None:
            return None
        forced = tap in self.expected.recording.forced
        return placed(reference, tensor) if forced or (self.inject(tap) and injectable(tap, reference)) else None

    def _compare(self, tap: str, tensor: Tensor) -> Tensor | None:
        """Compare a tap; return the reference in the port's layout, unless the two cannot be compared."""
        expected = self.expected
        reference = expected.counterpart(tap, tensor)
        floor = expected.floors.get(tap)
        if reference is None:
            shape = list(expected.recording.taps[tap].shape)
            self.skipped[tap] = f"a rotary table of shape {list(tensor.shape)}, not comparable with {shape}"
            return None
        if chooses_slots(reference) and tap not in expected.recording.forced:
            self.skipped[tap] = "slots that another module chose, or all that there are"
            return None
        if is_input(tap) and tensor.is_floating_point() != reference.is_floating_point():
            kinds = f"{tensor.dtype} for the port, {reference.dtype} for Hugging Face"
            self.skipped[tap] = f"{kinds}: not the same argument"
            return None
        if not comparable(tensor, reference):
            self.comparisons[tap] = compare_tap(tap, tensor, reference, floor, expected.dtype)
            return None
        if tap in expected.recording.forced:
            self.routing[tap] = tensor.clone()
            return reference
        if tap in self.scores:
            self.routing[tap] = tensor.clone()
        errors = expected.recording.errors_of(tensor, reference)
        self.tokens[tap] = relative_error_per_token(errors).to(torch.float32)
        self.comparisons[tap] = judge(tap, errors, floor, expected.dtype)
        return reference

    def finish(self, logits: Tensor, pairing: Pairing) -> PortTaps:
        """Compare the logits, judge the routers, and note which of the paired taps did not come."""
        expected = self.expected
        self._compare(LOGITS, logits)
        decisions, facts = expected.routing.judge(self.routing, expected.dtype)
        comparisons = self.comparisons | decisions
        for tap in pairing.paired:
            if tap not in comparisons and tap in self.routing:
                self.skipped[tap] = "the port does not tap all that its router returns"
            if tap not in comparisons and tap not in self.skipped:
                comparisons[tap] = failure(tap, "the port announced this tap and did not deliver it")
        for tap in told_otherwise(self.comparisons, expected.recording.taps):
            del comparisons[tap]
            self.skipped[tap] = "other indices than Hugging Face's, from which the module gives the same values"
        comparisons |= {tap: failure(tap, NO_SUCH_TAP) for tap in pairing.missing}
        comparisons |= {tap: failure(tap, "Hugging Face has no such module") for tap in pairing.extra}
        return PortTaps(
            comparisons=comparisons,
            tokens=self.tokens,
            logits=logits[0],
            skipped=self.skipped,
            routing=tuple(facts),
        )


def told_otherwise(comparisons: Mapping[str, TapComparison], reference: Mapping[str, Tensor]) -> list[str]:
    """Inputs that differ and do not matter: indices of another kind, whose module gives what Hugging Face's gives.

    Hugging Face hands token ids to some embeddings of positions, which count them; the port hands the positions.

    Args:
        comparisons: all that were made.
        reference: Hugging Face's taps.
    """
    indices = [tap for tap in comparisons if is_input(tap) and not reference[tap].is_floating_point()]
    outputs = {tap: comparisons.get(module_of(tap)) for tap in indices if comparisons[tap].diverged}
    return [tap for tap, output in outputs.items() if output is not None and output.verdict is Verdict.PASS]


def run_port(
    port: PortRunner, stimulus: Stimulus, expected: Expected, inject: Callable[[str], bool] = nowhere
) -> PortTaps:
    """Run the port and judge every paired tap against the noise floor.

    Args:
        port: in `expected.dtype`.
        stimulus: the input.
        expected: what to compare with.
        inject: see `Judge`.
    """
    judge = Judge(expected, inject)
    ids_1L = torch.tensor([stimulus.ids])
    logits_1LV = port.run(ids_1L, on_tap=judge.on_tap, taps=inputs_last(expected.pairing.paired))
    return judge.finish(logits_1LV, expected.pairing)


def inputs_last(taps: Collection[str]) -> list[str]:
    """Put inputs last.

    Taps of one tensor see it one after another. What a module gives comes before what others expect of it: a tensor
    that goes to the wrong place is right there, and wrong here.
    """
    return sorted(taps, key=is_input)
