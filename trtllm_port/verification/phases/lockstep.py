"""A phase of a large model: reference, yardstick and port go through the layers in step.

Each side runs in a thread of its own, and only one at a time: a side goes on, to the end of a layer, when another asks
for a tap that it has not come to. So every layer's weights are read while they are in the system's cache, and no tap
outlives its use: none is written to disk, whatever the number of layers. As soon as something differs, the phase is run
again with all of the reference's taps at hand, which is what the search for a cause needs.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.judge.metrics import TokenErrors
from trtllm_port.verification.judge.routing import Routing
from trtllm_port.verification.phases.lockstep_taps import AlteredError, ExpiringTaps, OnDemandTaps
from trtllm_port.verification.phases.phase import (
    Judged,
    PhaseResult,
    decode_fails,
    gates_of,
    pairing_of,
    result_of,
    run_phase,
    tables_of,
)
from trtllm_port.verification.sides.embedding_tables import TableIndex, table_indices
from trtllm_port.verification.sides.hugging_face_sides import (
    HuggingFaceFacts,
    HuggingFaceSides,
    LoadHuggingFace,
    input_variances,
)
from trtllm_port.verification.sides.mapped_weights import keep_freed_memory, return_freed_memory
from trtllm_port.verification.sides.noise_floor import Floors, Yardstick
from trtllm_port.verification.sides.port_run import Expected, TapJudge, everywhere, inputs_last
from trtllm_port.verification.sides.recording import Recording
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS, is_input, module_of
from trtllm_port.verification.taps.pairing import Pairing
from trtllm_port.verification.taps.runner import OnTap
from trtllm_port.verification.taps.soft_caps import ScorePeak

OWN_TOKENS = 128  # of the prompt: enough to see what error a module makes itself
NO_PAIRS = Pairing(paired=(), missing=(), extra=(), ignored={})  # they are known when all taps have come
SIDES = 2  # from end to end, and on the reference's values


class AllTapsNeeded(Exception):
    """Something differs, or there are routers: all of the reference's taps are needed at once."""


def run_phase_in_lockstep(
    phase: Phase, load: LoadHuggingFace, port: SessionRunner, stimulus: Stimulus, progress: Progress | None = None
) -> PhaseResult:
    """Run the three sides in step; one after another where that does not do (arguments as `run_phase`)."""
    keep_freed_memory()
    for whole_layers in (True, False):
        try:
            return _Lockstep(phase, load, port, stimulus, progress).run(whole_layers)
        except AlteredError:  # what a tap had given may still be as it was when the next one comes
            continue
        except AllTapsNeeded:
            break
    return_freed_memory()
    return run_phase(phase, load, port, stimulus, progress)


class _Lockstep:
    """One phase (arguments as `run_phase`)."""

    def __init__(
        self, phase: Phase, load: LoadHuggingFace, port: SessionRunner, stimulus: Stimulus, progress: Progress | None
    ) -> None:
        self.phase, self.load, self.port, self.stimulus, self.progress = phase, load, port, stimulus, progress
        if port.computed_elsewhere:  # how its taps are parted is known when all of the reference's have come
            raise AllTapsNeeded
        self.tapped = frozenset(port.tap_names)
        self.reference = load(phase.reference_dtype)
        self.facts = HuggingFaceFacts.of(self.reference)
        self.layers = [path for path in self.facts.modules if path.rpartition(".")[2].isdigit()]
        self.scores = ScorePeak()
        self.variances: dict[str, float] = {}
        self.logits: dict[int | None, Tensor] = {}
        self.tables = self.reference.tables()
        self.indices: dict[str, TableIndex] = {}
        self.yardstick_name = ""

    def run(self, whole_layers: bool) -> PhaseResult:
        """Run, compare and judge.

        Args:
            whole_layers: let the reference go through a layer before its taps are read; else it stops at each of them.

        Raises:
            AllTapsNeeded: something differs, or there are routers.
            AlteredError: Hugging Face writes into tensors that it has given.
        """
        rests = self.layers.__contains__ if whole_layers else None
        with closing(ExpiringTaps(self._refer, self._reads, rests)) as taps:
            recording = Recording(taps=taps, length=len(self.stimulus.ids), rows=())
            with closing(self._floors(recording, None)) as floors, closing(self._floors(recording, OWN_TOKENS)) as own:
                return self._judge(recording, floors, own)

    def _refer(self, taps: MutableMapping[str, Tensor]) -> None:
        """Run the reference."""

        def put(tap: str, tensor: Tensor) -> None:
            module = module_of(tap)
            if not is_input(tap) and not tensor.is_floating_point():
                raise AllTapsNeeded
            if is_input(tap):
                self.indices |= table_indices({tap: tensor}, self.tables, self.stimulus.ids)
                self.variances |= input_variances({tap: tensor}, {module: self.facts.modules[module]})
            if self.progress is not None and tap in self.layers:
                self.progress(f"compare {self.phase.dtype}", self.layers.index(tap), len(self.layers))
            taps[tap] = tensor

        with self.scores:
            taps[LOGITS] = self.reference.run(torch.tensor([self.stimulus.ids]), on_tap=put)

    def _reads(self, tap: str) -> int | None:
        """How often a tap of the reference is read."""
        return None if tap == LOGITS else 2 * SIDES if tap in self.tapped else SIDES

    def _floors(self, recording: Recording, tokens: int | None) -> OnDemandTaps[TokenErrors]:
        """The yardstick from end to end, or the first tokens on the reference's values."""
        runner = self.load(self.phase.dtype)
        self.yardstick_name, self.tables = runner.name, runner.tables()

        def measure(errors: MutableMapping[str, TokenErrors]) -> None:
            floors = Floors(recording, inject=tokens is not None, tokens=tokens, errors=errors)
            self.logits[tokens] = floors.measure(runner, self.stimulus.ids)

        return OnDemandTaps(measure, rests=self.layers.__contains__)  # to change threads takes time

    def _judge(
        self, recording: Recording, floors: OnDemandTaps[TokenErrors], own_floors: OnDemandTaps[TokenErrors]
    ) -> PhaseResult:
        expected = Expected(
            recording=recording,
            floors=floors,
            routing=Routing(routers=(), reference={}, yardstick={}),
            dtype=self.phase.dtype,
            pairing=NO_PAIRS,
            modules=self.facts.modules,
        )
        whole, own = TapJudge(expected), TapJudge(replace(expected, floors=own_floors, tokens=OWN_TOKENS), everywhere)
        prefill = len(self.stimulus.ids) - self.stimulus.decode_steps
        logits_1LV, begun_1LV, decoded_LV, cache = self.port.run_all(
            self.stimulus.ids,
            prefill,
            min(OWN_TOKENS, recording.length),
            observers=(self._observer(whole), self._observer(own)),
            taps=inputs_last(self.port.tap_names),
        )
        for side in (floors, own_floors):
            side.finish()
        sides = self._sides(recording, floors, own_floors)
        pairing = pairing_of(sides, self.port)
        judged = Judged(
            pairing=pairing,
            taps=whole.finish(logits_1LV, pairing),
            own=own.finish(begun_1LV, pairing).comparisons,
            tables=tables_of(sides, self.port),
        )
        runs = (judged.taps.comparisons, judged.own, judged.tables.wrong)
        if any(found.diverged for run in runs for found in run.values()):
            raise AllTapsNeeded
        gates = gates_of(sides, self.port, judged, (decoded_LV, cache)).gates
        if decode_fails(gates):
            raise AllTapsNeeded
        if self.progress is not None:
            self.progress(f"compare {self.phase.dtype}", len(self.layers), len(self.layers))
        return result_of(sides, self.port, judged, gates)

    def _observer(self, judge: TapJudge) -> OnTap:
        """What sees the port's taps: those that Hugging Face has, too."""

        def observe(tap: str, tensor: Tensor) -> Tensor | None:
            if module_of(tap) not in self.facts.modules or tap not in judge.expected.recording.taps:
                return None
            other = judge.on_tap(tap, tensor)
            if tap in judge.comparisons and judge.comparisons[tap].diverged:
                raise AllTapsNeeded
            return other

        return observe

    def _sides(
        self, recording: Recording, floors: OnDemandTaps[TokenErrors], own_floors: OnDemandTaps[TokenErrors]
    ) -> HuggingFaceSides:
        yardstick = Yardstick(
            floors=dict(floors),
            own_floors=dict(own_floors),
            routing={},
            own_routing={},
            logits=self.logits[None],
            rows=(),
            name=self.yardstick_name,
        )
        return HuggingFaceSides(
            phase=self.phase,
            load=self.load,
            stimulus=self.stimulus,
            recording=recording,
            yardstick=yardstick,
            variances=self.variances,
            left=None,
            tables=self.tables,
            indices=self.indices,
            facts=replace(self.facts, score_peak=self.scores.peak),
        )
