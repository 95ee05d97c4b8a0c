"""Judging a port by a recorded phase: the same gates as beside Hugging Face, on sketches and sampled logits."""

from __future__ import annotations

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification.bundle.record import RecordedLogits, RecordedPhase
from trtllm_port.verification.bundle.sketch import sketch, sketched_errors
from trtllm_port.verification.decode.generation_gates import RUNS, module_of_layer
from trtllm_port.verification.judge.divergence import first_divergence, mark_benign
from trtllm_port.verification.judge.gates import Gate, logit_gates, skipped, tap_gates
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors
from trtllm_port.verification.judge.tap_errors import NO_SUCH_TAP, TapComparison, failure, judge
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.sides.fused_modules import with_split_taps
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS, module_of
from trtllm_port.verification.taps.pairing import Pairing, pair
from trtllm_port.verification.taps.rotary_tables import is_rotary
from trtllm_port.verification.taps.runner import PortRunner

NO_INJECTION = "needs Hugging Face's tensors, of which a bundle has sketches only"


def judge_recorded(recorded: RecordedPhase, port: PortRunner, stimulus: Stimulus) -> PhaseResult:
    """Run the port in the phase's dtype, and judge it by the recording."""
    phase = recorded.phase
    if port.computed_elsewhere:
        taken = {tap: recorded.sketches[tap] for tap in recorded.order if tap in port.computed_elsewhere}
        port = with_split_taps(port, {tap: layouts[0].shape[-1] for tap, layouts in taken.items() if layouts})
    pairing = pair(recorded.order, port.tap_names, recorded.modules, port.weights.names(), port.computed_elsewhere)
    found = _Comparison(recorded)
    order = (*recorded.order, LOGITS)
    try:
        logits_LV = port.run(torch.tensor([stimulus.ids]), on_tap=found.compare, taps=pairing.paired)[0]
    except LayerExecutionError as error:
        comparisons = found.taps | {module_of_layer(error.layer): failure(module_of_layer(error.layer), error.message)}
        gates = [Gate(name=RUNS, phase=phase.name, verdict=Verdict.FAIL, reason=error.message)]
    else:
        found.compare_logits(logits_LV)
        comparisons = mark_benign(order, found.all(pairing))
        own = "taps.own"
        gates = [gate for gate in tap_gates(phase.name, list(comparisons.values()), [], pairing) if gate.name != own]
        gates.append(skipped(own, phase.name, NO_INJECTION))
        gates += _logit_gates("prefill", recorded, logits_LV, recorded.prompt)
        gates += _incremental_gates(recorded, port, stimulus)
    divergence = first_divergence(order, comparisons)
    return PhaseResult(
        phase=phase,
        order=order,
        taps=comparisons,
        own={},
        ignored={**pairing.ignored, **found.skipped},
        gates=tuple(gates),
        divergences=() if divergence is None else (divergence,),
        causes={},
        tokens=found.tokens,
        floor_tokens=found.floor_tokens,
        variances={},
        facts=HuggingFaceFacts(root=recorded.root, modules=recorded.modules, vectors={}, name=recorded.reference),
        executor=port.name,
        yardstick=recorded.yardstick,
    )


class _Comparison:
    """Compares taps with their sketches when they arrive."""

    def __init__(self, recorded: RecordedPhase) -> None:
        self.recorded = recorded
        self.taps: dict[str, TapComparison] = {}
        self.skipped: dict[str, str] = {}
        self.tokens: dict[str, Tensor] = {}
        self.floor_tokens: dict[str, Tensor] = {}

    def compare(self, tap: str, tensor: Tensor) -> None:
        known = self.recorded.at(tap, tensor.shape)
        if known is None:
            self._unknown(tap, tensor)
            return
        reference, floor = known
        errors = sketched_errors(sketch(tensor), reference)
        floor_errors = floor.errors(reference)
        self.tokens[tap] = relative_error_per_token(errors).float()
        self.floor_tokens[tap] = relative_error_per_token(floor_errors).float()
        self.taps[tap] = judge(tap, errors, floor_errors, self.recorded.phase.dtype)

    def _unknown(self, tap: str, tensor: Tensor) -> None:
        shapes = [list(each.shape) for each in self.recorded.sketches.get(tap, ())]
        if not shapes or is_rotary(self.recorded.modules[module_of(tap)].class_name):
            self.skipped[tap] = f"of shape {list(tensor.shape)}, which was not recorded"
        else:
            self.taps[tap] = failure(tap, f"shape {list(tensor.shape)}, Hugging Face has {shapes[0]}")

    def compare_logits(self, logits_LV: Tensor) -> None:
        known = self.recorded.prompt
        if logits_LV.shape[-1] != known.reference_NV.shape[-1]:
            self.taps[LOGITS] = failure(LOGITS, f"{logits_LV.shape[-1]} logits, not {known.reference_NV.shape[-1]}")
            return
        errors = token_errors(logits_LV[known.tokens_N], known.reference_NV)
        floor = token_errors(known.yardstick_NV, known.reference_NV)
        self.tokens[LOGITS] = relative_error_per_token(errors).float()
        self.floor_tokens[LOGITS] = relative_error_per_token(floor).float()
        self.taps[LOGITS] = judge(LOGITS, errors, floor, self.recorded.phase.dtype)

    def all(self, pairing: Pairing) -> dict[str, TapComparison]:
        """Return the comparisons, with those that did not come about."""
        for tap in pairing.paired:
            if tap not in self.taps and tap not in self.skipped:
                self.taps[tap] = failure(tap, "the port announced this tap and did not deliver it")
        self.taps |= {tap: failure(tap, NO_SUCH_TAP) for tap in pairing.missing}
        self.taps |= {tap: failure(tap, "Hugging Face has no such module") for tap in pairing.extra}
        return self.taps


def _logit_gates(
    where: str, recorded: RecordedPhase, logits_TV: Tensor, known: RecordedLogits, start: int = 0
) -> list[Gate]:
    """Judge logits of the tokens from `start` on, as far as they were recorded."""
    chosen_N = known.tokens_N >= start
    runs = (logits_TV[known.tokens_N[chosen_N]], known.reference_NV[chosen_N], known.yardstick_NV[chosen_N])
    return logit_gates(where, recorded.phase.name, recorded.phase.dtype, runs)


def _incremental_gates(recorded: RecordedPhase, port: PortRunner, stimulus: Stimulus) -> list[Gate]:
    gates: list[Gate] = []
    for where, judge_part in (("decode", _decode_gates), ("batch", _batch_gates)):
        try:
            gates += judge_part(recorded, port, stimulus)
        except LayerExecutionError as error:
            name, reason = f"{where}.runs", error.message
            gates.append(Gate(name=name, phase=recorded.phase.name, verdict=Verdict.FAIL, reason=reason))
    return gates


def _decode_gates(recorded: RecordedPhase, port: PortRunner, stimulus: Stimulus) -> list[Gate]:
    if not stimulus.decode_steps:
        return [skipped("decode", recorded.phase.name, "the prompt is too short for a decode step")]
    prefill = len(stimulus.ids) - stimulus.decode_steps
    logits_LV = port.run_incrementally([stimulus.ids], [prefill])[0]
    return _logit_gates("decode", recorded, logits_LV, recorded.prompt, prefill)


def _batch_gates(recorded: RecordedPhase, port: PortRunner, stimulus: Stimulus) -> list[Gate]:
    if recorded.rows is None or port.max_batch_size < len(stimulus.rows):
        return [skipped("batch", recorded.phase.name, f"the port takes {port.max_batch_size} rows at once")]
    rows = port.run_incrementally(stimulus.rows, stimulus.row_prefill)
    for row_LV, last_TV, n in zip(rows, _last_tokens(port, stimulus), stimulus.row_prefill, strict=True):
        row_LV[n - 1 : n] = last_TV  # asked for alone, as `run` does; all at once the prompt's are judged already
    return _logit_gates("batch", recorded, torch.cat(rows), recorded.rows)


def _last_tokens(port: PortRunner, stimulus: Stimulus) -> Tensor:
    """The logits [B, 1, V] of each prompt's last token, NaN where the port gives those of another number of tokens."""
    prompts = [row[:n] for row, n in zip(stimulus.rows, stimulus.row_prefill, strict=True)]
    last_BTV = port.run_last(prompts)
    return last_BTV if last_BTV.shape[1] == 1 else torch.full_like(last_BTV[:, :1], torch.nan)
