"""One phase of a comparison: reference, yardstick and port in turn on the same stimulus."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.causes.signatures import Cause, explain
from trtllm_port.verification.decode.batches import batch_cause, batch_divergence, row_comparisons
from trtllm_port.verification.decode.decode_steps import failed_causes, step_comparisons, step_divergence
from trtllm_port.verification.decode.embedding_rows import TableResult, compare_tables, table_causes, table_gate
from trtllm_port.verification.decode.incremental import Decoded, Used, judge_use
from trtllm_port.verification.decode.single_token import right_taps
from trtllm_port.verification.experiments.replayed import with_replay
from trtllm_port.verification.judge.divergence import first_divergence, mark_benign
from trtllm_port.verification.judge.gates import Gate, logit_gates, tap_gates
from trtllm_port.verification.judge.metrics import relative_error_per_token
from trtllm_port.verification.judge.routing import Routing, RoutingFacts, routing_gate
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.fused_modules import part_by_part
from trtllm_port.verification.sides.hugging_face_sides import (
    HuggingFaceFacts,
    HuggingFaceSides,
    LoadHuggingFace,
    run_hugging_face,
)
from trtllm_port.verification.sides.idle_modules import without_idle
from trtllm_port.verification.sides.injected_run import own_divergences, run_injected
from trtllm_port.verification.sides.port_run import Expected, PortTaps, run_port
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.taps.pairing import Pairing, pair
from trtllm_port.verification.taps.runner import PortRunner

UNREAD = "the network does not read it"


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What a phase found.

    Attributes:
        phase: which.
        order: all taps in Hugging Face's execution order, the logits last.
        taps: the comparison of each, missing ones included.
        own: the same from the injected run, where every module works on Hugging Face's values.
        steps: those of rows of tables, or of the first decode step that differs, if that is where the port goes wrong.
        unread: what no run read: tables with the reason, and parameters that the network has no use for.
        ignored: taps that were not compared and need not be, with the reason.
        gates: for the taps and the logits.
        divergences: paths of all guilty modules ("" is the model itself), in Hugging Face's order.
        causes: per guilty module hypotheses about it, best first; of equal modules in several layers the first only.
        tokens: relative error per token of every compared tap, float32 [T].
        floor_tokens: the same of the yardstick.
        variances: per normalisation, the smallest mean square of a token of its input.
        routing: how the routers of a mixture of experts decided.
        facts: about Hugging Face's model.
        inputs: in which ways each input of the port differed (see `InputLog.differed`).
        executor, yardstick: what computed.
    """

    phase: Phase
    order: tuple[str, ...]
    taps: Mapping[str, TapComparison]
    own: Mapping[str, TapComparison]
    steps: Mapping[str, TapComparison] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str]
    gates: tuple[Gate, ...]
    divergences: tuple[str, ...]
    causes: Mapping[str, tuple[Cause, ...]]
    tokens: Mapping[str, Tensor] = field(repr=False)
    floor_tokens: Mapping[str, Tensor] = field(repr=False)
    variances: Mapping[str, float]
    routing: tuple[RoutingFacts, ...] = ()
    facts: HuggingFaceFacts
    inputs: Mapping[str, Collection[str]] = field(default_factory=dict)
    executor: str
    yardstick: str

    @property
    def divergence(self) -> str | None:
        """The first guilty module."""
        return next(iter(self.divergences), None)


def run_phase(
    phase: Phase, load: LoadHuggingFace, port: PortRunner, stimulus: Stimulus, progress: Progress | None = None
) -> PhaseResult:
    """Run the three sides and compare them.

    Args:
        phase: the precisions.
        load: gives Hugging Face's model in a dtype.
        port: the port in the phase's dtype.
        stimulus: the input.
        progress: called after each side.
    """
    sides = run_hugging_face(phase, load, stimulus, progress)
    result = judge_port(sides, port)
    if progress is not None:
        progress(f"compare {phase.dtype}", 3, 3)
    return result


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The port's two runs, judged.

    Attributes:
        pairing: which taps were compared.
        taps: the run from end to end.
        own: the comparisons of the injected run.
        tables: those of all rows of all embedding tables.
    """

    pairing: Pairing
    taps: PortTaps
    own: Mapping[str, TapComparison]
    tables: TableResult


def judge_port(sides: HuggingFaceSides, port: PortRunner) -> PhaseResult:
    """Run the port in the phase's dtype, from end to end and on Hugging Face's values, and judge it."""
    phase, stimulus, recording, facts = sides.phase, sides.stimulus, sides.recording, sides.facts
    if port.computed_elsewhere:
        taken = {tap for tap in recording.order if tap in port.computed_elsewhere}
        port = part_by_part(port, {tap: recording.taps[tap].shape[-1] for tap in taken})
    expected = expected_of(sides, pairing_of(sides, port))
    taps = run_port(port, stimulus, expected)
    taps = replace(taps, comparisons=mark_benign(recording.order, taps.comparisons))
    own_routing = replace(expected.routing, yardstick=sides.yardstick.own_routing)
    expected = replace(expected, floors=sides.yardstick.own_floors, routing=own_routing)
    own = run_injected(port, stimulus, expected)
    divergences = own_guilty = own_divergences(recording.order, own)
    if not divergences:
        first = first_divergence(recording.order, taps.comparisons)
        divergences = () if first is None else (first,)
    causes = explain(divergences, port, stimulus, expected, (own, facts)) if divergences else {}
    if causes:
        # A difference of precision shows in that precision only; any other shows best where the floor is lowest.
        runner = sides.load(phase.reference_dtype if phase.name == "logic" else phase.dtype)
        causes = with_replay(causes, runner, port, stimulus, expected, own if own_guilty else taps.comparisons)
    judged = Judged(pairing=expected.pairing, taps=taps, own=own, tables=tables_of(sides, port))
    used = gates_of(sides, port, judged)
    gates, failed, right = used.gates, used.failed, right_taps(expected, taps.comparisons)
    expected = replace(expected, floors=sides.yardstick.floors)
    steps: Mapping[str, TapComparison] = {}
    if not divergences and judged.tables.wrong:
        steps = judged.tables.wrong
        divergences, causes = tuple(steps), table_causes(judged.tables)
    elif not divergences and decode_fails(gates):
        steps = step_comparisons(port, stimulus, expected, used.step, right)
        divergences, causes = step_divergence(recording.order, steps)
    elif not divergences and (cause := batch_cause(gates)) is not None:
        steps = row_comparisons(sides, port, expected, cause, (used.token, right))
        divergences, causes = batch_divergence(recording.order, steps, cause, facts.modules)
    if not divergences and failed:
        steps, divergences, causes = failed, tuple(failed), failed_causes(failed)
    result = result_of(sides, port, judged, gates)
    return replace(result, steps=steps, divergences=divergences, causes=causes)


def tables_of(sides: HuggingFaceSides, port: PortRunner) -> TableResult:
    """Compare all rows of the embedding tables."""
    return compare_tables(port, sides.tables, sides.indices, sides.phase.dtype)


def pairing_of(sides: HuggingFaceSides, port: PortRunner) -> Pairing:
    """Pair the taps, without those of Hugging Face's that a port may do without."""
    facts = sides.facts
    pairing = pair(
        sides.recording.order[:-1], port.tap_names, facts.modules, port.weights.names(), port.computed_elsewhere
    )
    return (
        without_idle(pairing, sides.load(sides.phase.reference_dtype), sides.stimulus) if pairing.missing else pairing
    )


def expected_of(sides: HuggingFaceSides, pairing: Pairing) -> Expected:
    """What the taps of the run from end to end are compared with."""
    recording = sides.recording
    return Expected(
        recording=recording,
        floors=sides.yardstick.floors,
        routing=Routing(routers=recording.routers, reference=recording.taps, yardstick=sides.yardstick.routing),
        dtype=sides.phase.dtype,
        pairing=pairing,
        modules=sides.facts.modules,
    )


def gates_of(sides: HuggingFaceSides, port: PortRunner, judged: Judged, decoded: Decoded | None = None) -> Used:
    """All gates of a phase; `decoded` is what came through the KV cache, where that was run already."""
    phase, recording, taps, own = sides.phase, sides.recording, judged.taps, judged.own
    gates = tap_gates(phase.name, list(taps.comparisons.values()), list(own.values()), judged.pairing)
    if taps.routing:
        decided = [router.indices for router in recording.routers]
        found = [run[tap] for run in (taps.comparisons, own) for tap in decided if tap in run]
        gates.append(routing_gate(phase.name, taps.routing, found))
    gates += table_gate(phase.name, judged.tables)
    gates += logit_gates("prefill", phase.name, phase.dtype, (taps.logits, recording.logits, sides.yardstick.logits))
    used = judge_use(sides, port, decoded)
    return used._replace(gates=gates + used.gates)


def decode_fails(gates: Sequence[Gate]) -> bool:
    """Whether steps through the KV cache differ."""
    return any(gate.name.startswith("decode.") and gate.verdict is Verdict.FAIL for gate in gates)


def result_of(sides: HuggingFaceSides, port: PortRunner, judged: Judged, gates: Sequence[Gate]) -> PhaseResult:
    """The result of a phase in which nothing differs."""
    taps, floors = judged.taps, sides.yardstick.floors
    return PhaseResult(
        phase=sides.phase,
        order=sides.recording.order,
        taps=taps.comparisons,
        own=judged.own,
        ignored={**judged.pairing.ignored, **taps.skipped},
        unread={**judged.tables.left_out, **dict.fromkeys(port.unread, UNREAD)},
        gates=tuple(gates),
        divergences=(),
        causes={},
        tokens=taps.tokens,
        floor_tokens={tap: relative_error_per_token(floors[tap]).float() for tap in taps.tokens},
        variances=sides.variances,
        routing=taps.routing,
        facts=sides.facts,
        inputs=dict(port.inputs),
        executor=port.name,
        yardstick=sides.yardstick.name,
    )
