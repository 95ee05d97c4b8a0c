"""One phase of a comparison: reference, yardstick and port in turn on the same stimulus.

A port in bfloat16 or float16 has two phases. The logic phase runs the port's own network in float32 against Hugging
Face in float64, with float32 as the yardstick: the floor there is so low that even a wrong epsilon shows. The precision
phase runs the port in its dtype against Hugging Face in float32. A float32 port has the logic phase only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from trtllm_port.verification.cache_contents import Layer, Layers, cache_gates
from trtllm_port.verification.causes import Cause, explain
from trtllm_port.verification.compare import TapComparison
from trtllm_port.verification.decoding import step_comparisons, step_divergence
from trtllm_port.verification.gates import Gate, logit_gates, skipped, tap_gates
from trtllm_port.verification.hugging_face import HuggingFaceRunner
from trtllm_port.verification.idle import without_idle
from trtllm_port.verification.injected import own_divergences, run_injected
from trtllm_port.verification.locate import first_divergence, mark_benign
from trtllm_port.verification.metrics import relative_error_per_token
from trtllm_port.verification.padding import left_padding_gate
from trtllm_port.verification.ports import Expected, PortTaps, run_port
from trtllm_port.verification.recording import Recording, record
from trtllm_port.verification.replayed import with_replay
from trtllm_port.verification.routing import Routing, RoutingFacts, force_rows, routing_gate
from trtllm_port.verification.runners import Force, PortRunner
from trtllm_port.verification.sides import (
    HuggingFaceFacts,
    Yardstick,
    input_variances,
    run_yardstick,
)
from trtllm_port.verification.softcaps import ScorePeak
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import Pairing, pair
from trtllm_port.verification.verdict import Verdict

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total)."""
LoadHuggingFace = Callable[[str], HuggingFaceRunner]
"""Loads the model in a dtype; two precisions need not be in memory together."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Which precisions meet.

    Attributes:
        name: "logic" or "precision".
        dtype: of the port and of the yardstick.
        reference_dtype: of the reference.
        incremental: whether decode steps and the batch are run, too.
    """

    name: str
    dtype: str
    reference_dtype: str
    incremental: bool


def phases_of(dtype: str) -> tuple[Phase, ...]:
    """Return the phases for a port's dtype, in the order of running."""
    logic = Phase(name="logic", dtype="float32", reference_dtype="float64", incremental=dtype == "float32")
    if dtype == "float32":
        return (logic,)
    return logic, Phase(name="precision", dtype=dtype, reference_dtype="float32", incremental=True)


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What a phase found.

    Attributes:
        phase: which.
        order: all taps in Hugging Face's execution order, the logits last.
        taps: the comparison of each, missing ones included.
        own: the same from the injected run, where every module works on Hugging Face's values.
        steps: those of the first step after the prefill, if that is where the port goes wrong.
        ignored: taps that were not compared and need not be, with the reason.
        gates: for the taps and the logits.
        divergences: paths of all guilty modules ("" is the model itself), in Hugging Face's order.
        causes: per guilty module hypotheses about it, best first; of equal modules in several layers the first only.
        tokens: relative error per token of every compared tap, float32 [T].
        floor_tokens: the same of the yardstick.
        variances: per normalisation, the smallest mean square of a token of its input.
        routing: how the routers of a mixture of experts decided.
        facts: about Hugging Face's model.
        executor, yardstick: what computed.
    """

    phase: Phase
    order: tuple[str, ...]
    taps: Mapping[str, TapComparison]
    own: Mapping[str, TapComparison]
    steps: Mapping[str, TapComparison] = field(default_factory=dict)
    ignored: Mapping[str, str]
    gates: tuple[Gate, ...]
    divergences: tuple[str, ...]
    causes: Mapping[str, tuple[Cause, ...]]
    tokens: Mapping[str, Tensor] = field(repr=False)
    floor_tokens: Mapping[str, Tensor] = field(repr=False)
    variances: Mapping[str, float]
    routing: tuple[RoutingFacts, ...] = ()
    facts: HuggingFaceFacts
    executor: str
    yardstick: str

    @property
    def divergence(self) -> str | None:
        """The first guilty module."""
        return next(iter(self.divergences), None)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSides:
    """Reference and yardstick of a phase: what a port is compared with, and several ports can be.

    Attributes:
        phase: the precisions.
        load: gives Hugging Face's model in a dtype.
        stimulus: the input.
        recording, yardstick: the two runs.
        caches: what the KV caches of the two hold after the prompt; empty where that was not asked for.
        variances: per normalisation, the smallest mean square of a token of its input.
        left: the yardstick's logits of the rows from a left-padded batch, None if it cannot run one.
        facts: about the model.
    """

    phase: Phase
    load: LoadHuggingFace
    stimulus: Stimulus
    recording: Recording = field(repr=False)
    yardstick: Yardstick = field(repr=False)
    variances: Mapping[str, float]
    left: tuple[Tensor, ...] | None = field(repr=False)
    caches: tuple[Layers, Layers] = field(default=((), ()), repr=False)
    facts: HuggingFaceFacts = field(repr=False)


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


def run_hugging_face(
    phase: Phase, load: LoadHuggingFace, stimulus: Stimulus, progress: Progress | None = None
) -> HuggingFaceSides:
    """Run reference and yardstick (arguments as `run_phase`)."""

    def step(done: int) -> None:
        if progress is not None:
            progress(f"compare {phase.dtype}", done, 3)

    step(0)
    runner = load(phase.reference_dtype)
    # Of a large model the first layers' cache is compared.
    with_cache = phase.incremental and stimulus.decode_steps > 0 and not runner.streamed
    caches: tuple[list[Layer], list[Layer]] = ([], [])
    recording, facts = _reference(runner, stimulus, caches[0] if with_cache else None)
    step(1)
    runner.forget_weights()  # two precisions need not be in memory together
    runner = load(phase.dtype)
    yardstick = run_yardstick(runner, stimulus, recording, caches[1] if with_cache else None)
    left = runner.run_left_padded(stimulus.rows)
    runner.forget_weights()
    step(2)
    return HuggingFaceSides(
        phase=phase,
        load=load,
        stimulus=stimulus,
        recording=recording,
        yardstick=yardstick,
        variances=input_variances(recording.taps, facts.modules),
        left=left,
        caches=caches,
        facts=facts,
    )


def _reference(
    runner: HuggingFaceRunner, stimulus: Stimulus, cache: list[Layer] | None
) -> tuple[Recording, HuggingFaceFacts]:
    with ScorePeak() as scores:
        recording = record(runner, stimulus, on_disk=runner.streamed, cache=cache)
    return recording, replace(HuggingFaceFacts.of(runner), score_peak=scores.peak)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The port's two runs, judged.

    Attributes:
        pairing: which taps were compared.
        taps: the run from end to end.
        own: the comparisons of the injected run.
    """

    pairing: Pairing
    taps: PortTaps
    own: Mapping[str, TapComparison]


def judge_port(sides: HuggingFaceSides, port: PortRunner) -> PhaseResult:
    """Run the port in the phase's dtype, from end to end and on Hugging Face's values, and judge it."""
    phase, stimulus, recording, facts = sides.phase, sides.stimulus, sides.recording, sides.facts
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
    judged = Judged(pairing=expected.pairing, taps=taps, own=own)
    gates = gates_of(sides, port, judged)
    steps: dict[str, TapComparison] = {}
    if not divergences and decode_fails(gates):
        steps = step_comparisons(port, stimulus, replace(expected, floors=sides.yardstick.floors))
        divergences, causes = step_divergence(recording.order, steps)
    result = result_of(sides, port, judged, gates)
    return replace(result, steps=steps, divergences=divergences, causes=causes)


def pairing_of(sides: HuggingFaceSides, port: PortRunner) -> Pairing:
    """Pair the taps, without those of Hugging Face's that a port may do without."""
    facts = sides.facts
    pairing = pair(sides.recording.order[:-1], port.tap_names, facts.modules, port.weights.names())
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


def gates_of(sides: HuggingFaceSides, port: PortRunner, judged: Judged, decoded: Decoded | None = None) -> list[Gate]:
    """All gates of a phase; `decoded` is what came through the KV cache, where that was run already."""
    phase, recording, taps, own = sides.phase, sides.recording, judged.taps, judged.own
    gates = tap_gates(phase.name, list(taps.comparisons.values()), list(own.values()), judged.pairing)
    if taps.routing:
        decided = [router.indices for router in recording.routers]
        found = [run[tap] for run in (taps.comparisons, own) for tap in decided if tap in run]
        gates.append(routing_gate(phase.name, taps.routing, found))
    gates += logit_gates("prefill", phase.name, phase.dtype, (taps.logits, recording.logits, sides.yardstick.logits))
    return gates + incremental_gates(sides, port, decoded)


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
        gates=tuple(gates),
        divergences=(),
        causes={},
        tokens=taps.tokens,
        floor_tokens={tap: relative_error_per_token(floors[tap]).float() for tap in taps.tokens},
        variances=sides.variances,
        routing=taps.routing,
        facts=sides.facts,
        executor=port.name,
        yardstick=sides.yardstick.name,
    )


Decoded = tuple[Tensor, Mapping[str, Tensor]]
"""Logits [L, V] of a prefix and the steps after it, and the cache that they leave."""


def incremental_gates(sides: HuggingFaceSides, port: PortRunner, decoded: Decoded | None = None) -> list[Gate]:
    """Judge logits that came through the KV cache: forced decode steps, then a right-padded batch.

    Every one of them must equal what Hugging Face's full forward gives at the same position, the batch also what a
    left-padded batch gives there.
    """
    phase, stimulus, recording, yardstick = sides.phase, sides.stimulus, sides.recording, sides.yardstick
    if not phase.incremental:
        return []
    gates: list[Gate] = []
    if stimulus.decode_steps:
        prefill = len(stimulus.ids) - stimulus.decode_steps
        logits_LV, cache = decoded or _decode(sides, port, prefill)
        runs = (logits_LV[prefill:], recording.logits[prefill:], yardstick.logits[prefill:])
        gates += logit_gates("decode", phase.name, phase.dtype, runs)
        gates += cache_gates((phase.name, phase.dtype), cache, sides.caches, gates)
    else:
        gates.append(skipped("decode", phase.name, "the prompt is too short for a decode step"))
    if not stimulus.rows:
        return [*gates, skipped("batch", phase.name, "no batch was fed")]
    if port.max_batch_size < len(stimulus.rows):
        return [*gates, skipped("batch", phase.name, f"the port takes {port.max_batch_size} rows at once")]
    forced = _forced_routing(recording, port, recording.row_routing)
    rows_TV = torch.cat(port.run_incrementally(stimulus.rows, stimulus.row_prefill, **forced))
    expected = torch.cat(recording.rows), torch.cat(yardstick.rows)
    gates += logit_gates("batch", phase.name, phase.dtype, (rows_TV, *expected))
    return [*gates, left_padding_gate((phase.name, phase.dtype), rows_TV, expected, sides.left)]


def _decode(sides: HuggingFaceSides, port: PortRunner, prefill: int) -> Decoded:
    forced = _forced_routing(sides.recording, port, [sides.recording.taps])
    cache: dict[str, Tensor] = {}
    logits_LV = port.run_incrementally([sides.stimulus.ids], [prefill], **forced, keep=cache)[0]
    return logits_LV, cache


class _Forced(TypedDict, total=False):
    force: Force
    taps: tuple[str, ...]


def _forced_routing(recording: Recording, port: PortRunner, routing: Sequence[Mapping[str, Tensor]]) -> _Forced:
    """The arguments that make a run with a cache choose the reference's experts, where the port can be made to."""
    taps = tuple(sorted(recording.forced.intersection(port.tap_names)))
    return {"force": partial(force_rows, routing), "taps": taps} if taps else {}
