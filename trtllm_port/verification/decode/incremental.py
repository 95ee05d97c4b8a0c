"""What a port gives as `run` uses it: forced decode steps through the KV cache, and a batch of unequal rows.

Every logit must equal what Hugging Face's full forward of the row alone gives at the same position.

B rows, L tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification.decode.cache_contents import cache_gates
from trtllm_port.verification.decode.decode_floor import decode_gates
from trtllm_port.verification.decode.padding import left_padding_gate
from trtllm_port.verification.judge.gates import Gate, logit_gates, skipped, threshold_gate
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors
from trtllm_port.verification.judge.routing import force_rows
from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceSides
from trtllm_port.verification.sides.recording import Recording
from trtllm_port.verification.taps.runner import Forced, PortRunner

LAST = "batch.last"
RUNS = "port.runs"

Decoded = tuple[Tensor, Mapping[str, Tensor]]
"""Logits [L, V] of a prefix and the steps after it, and the cache that they leave."""


class Used(NamedTuple):
    """What using a port showed.

    Attributes:
        gates: of the steps and of the batch.
        failed: modules that could not be computed.
        step: the first decode step that differs.
        token: row and position of the first token of a batch that differs; (0, 0) where none does.
    """

    gates: list[Gate]
    failed: Mapping[str, TapComparison] = {}
    step: int = 0
    token: tuple[int, int] = (0, 0)


def judge_use(sides: HuggingFaceSides, port: PortRunner, decoded: Decoded | None = None) -> Used:
    """Judge forced decode steps, then a right-padded batch.

    Args:
        sides: Hugging Face's two runs; the batch is also compared with what a left-padded one gives there.
        port: the port.
        decoded: what came through the KV cache, where that was run already.
    """
    steps = _guarded("decode", sides, lambda: _judge_steps(sides, port, decoded))
    batch = _guarded("batch", sides, lambda: _judge_batch(sides, port))
    return Used(steps.gates + batch.gates, {**batch.failed, **steps.failed}, steps.step, batch.token)


def _guarded(where: str, sides: HuggingFaceSides, judge: Callable[[], Used]) -> Used:
    """What came of a part; a failing gate where the port could not be run."""
    try:
        return judge()
    except LayerExecutionError as error:
        gate = Gate(name=f"{where}.runs", phase=sides.phase.name, verdict=Verdict.FAIL, reason=error.message)
        module = module_of_layer(error.layer)
        return Used([gate], {module: failure(module, error.message)} if module in sides.facts.modules else {})


def module_of_layer(layer: str) -> str:
    """Return the path of the module that made a layer of a network, by the layer's name; "" where none did."""
    return layer.rpartition("/")[0].partition("/")[0]


def _judge_steps(sides: HuggingFaceSides, port: PortRunner, decoded: Decoded | None) -> Used:
    phase = sides.phase
    if not sides.stimulus.decode_steps:
        return Used([skipped("decode", phase.name, "the prompt is too short for a decode step")])
    logits_LV, cache = decoded or _decode(sides, port)
    named = (phase.name, phase.dtype)
    gates = decode_gates(named, _steps(sides, logits_LV), lambda: sides.own_steps)
    gates += cache_gates(named, cache, sides.caches, gates)
    return Used(gates, step=first_wrong_step(sides, logits_LV))


def _steps(sides: HuggingFaceSides, logits_LV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The steps' logits of the port, the reference and the yardstick."""
    prefill = len(sides.stimulus.ids) - sides.stimulus.decode_steps
    return logits_LV[prefill:], sides.recording.logits[prefill:], sides.yardstick.logits[prefill:]


def first_wrong_step(sides: HuggingFaceSides, logits_LV: Tensor) -> int:
    """Return the first decode step that errs more than Hugging Face's worst one; 0 where none does."""
    port_SV, reference_SV, yardstick_SV = _steps(sides, logits_LV)
    if port_SV.shape != reference_SV.shape:
        return 0
    floor = relative_error_per_token(token_errors(yardstick_SV, reference_SV)).max()
    error_S = relative_error_per_token(token_errors(port_SV, reference_SV))
    wrong_S = ~(error_S <= RATIO.warns * max(float(floor), ROUNDING[sides.phase.dtype]))
    return int(wrong_S.nonzero()[0]) if bool(wrong_S.any()) else 0


def _decode(sides: HuggingFaceSides, port: PortRunner) -> Decoded:
    prefill = len(sides.stimulus.ids) - sides.stimulus.decode_steps
    forced = _forced_routing(sides.recording, port, [sides.recording.taps])
    cache: dict[str, Tensor] = {}
    logits_LV = port.run_incrementally([sides.stimulus.ids], [prefill], forced=forced, keep=cache)[0]
    return logits_LV, cache


def _judge_batch(sides: HuggingFaceSides, port: PortRunner) -> Used:
    phase, stimulus, recording, yardstick = sides.phase, sides.stimulus, sides.recording, sides.yardstick
    if not stimulus.rows:
        return Used([skipped("batch", phase.name, "no batch was fed")])
    if port.max_batch_size < len(stimulus.rows):
        return Used([skipped("batch", phase.name, f"the port takes {port.max_batch_size} rows at once")])
    forced = _forced_routing(recording, port, recording.row_routing)
    rows_LV = port.run_incrementally(stimulus.rows, stimulus.row_prefill, forced=forced)
    rows_TV = torch.cat(rows_LV)
    prompts = [row[:length] for row, length in zip(stimulus.rows, stimulus.row_prefill, strict=True)]
    last_B1V = port.run_last(prompts, forced=forced)
    expected = torch.cat(recording.rows), torch.cat(yardstick.rows)
    named = (phase.name, phase.dtype)
    gates = [
        *logit_gates("batch", *named, (rows_TV, *expected)),
        last_token_gate(named, last_B1V, (recording.rows, yardstick.rows), stimulus.row_prefill),
        left_padding_gate(named, rows_TV, expected, sides.left),
    ]
    failed = any(gate.verdict is Verdict.FAIL for gate in gates)
    return Used(gates, token=first_wrong_token(sides, rows_LV) if failed else (0, 0))


def first_wrong_token(sides: HuggingFaceSides, rows_LV: Sequence[Tensor]) -> tuple[int, int]:
    """Return row and position of the first token of a batch that errs more than Hugging Face's worst one.

    Where none does, it is the one that errs most; the first of all where shapes differ.
    """
    reference, yardstick = sides.recording.rows, sides.yardstick.rows
    if [row_LV.shape for row_LV in rows_LV] != [row_LV.shape for row_LV in reference]:
        return 0, 0
    floor = relative_error_per_token(token_errors(torch.cat(yardstick), torch.cat(reference))).max()
    errors_T = relative_error_per_token(token_errors(torch.cat(list(rows_LV)), torch.cat(reference)))
    limit = min(RATIO.warns * max(float(floor), ROUNDING[sides.phase.dtype]), float(errors_T.max()))
    at = int((~(errors_T < limit)).nonzero()[0])
    for row, row_LV in enumerate(rows_LV):
        if at < len(row_LV):
            return row, at
        at -= len(row_LV)
    raise AssertionError("a token of no row")


def last_token_gate(
    phase: tuple[str, str],
    last_B1V: Tensor,
    sides: tuple[Sequence[Tensor], Sequence[Tensor]],
    prefill: Sequence[int],
) -> Gate:
    """Judge the logits of each row's last token, where no others were asked for: each row's are at another place.

    No token may err more than Hugging Face's worst one does: of so few, an average says little.

    Args:
        phase: its name, and the port's dtype.
        last_B1V: the port's.
        sides: reference and yardstick, per row logits [L_b, V].
        prefill: length of each row's prompt.
    """
    (name, dtype), (reference, yardstick) = phase, (torch.cat(list(side)) for side in sides)
    expected_B1V = torch.stack([row_LV[n - 1 : n] for row_LV, n in zip(sides[0], prefill, strict=True)])
    if last_B1V.shape != expected_B1V.shape:
        reason = f"shape {list(last_B1V.shape)} where one token of each row was asked for, {list(expected_B1V.shape)}"
        return Gate(name=LAST, phase=name, verdict=Verdict.FAIL, reason=reason)
    floor = token_errors(yardstick, reference)
    if not (floor.finite and floor.reference_finite):
        return skipped(LAST, name, "Hugging Face's own logits are not finite")
    worst = max(float(relative_error_per_token(floor).max()), ROUNDING[dtype])
    found = relative_error_per_token(token_errors(last_B1V, expected_B1V))
    return threshold_gate(LAST, name, float(found.max()) / worst, RATIO)


def _forced_routing(recording: Recording, port: PortRunner, routing: Sequence[Mapping[str, Tensor]]) -> Forced | None:
    """What makes a run with a cache choose the reference's experts; None where the port has no such taps."""
    taps = tuple(sorted(recording.forced.intersection(port.tap_names)))
    return Forced(partial(force_rows, routing), taps) if taps else None
