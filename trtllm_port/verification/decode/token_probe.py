"""A port as `run` uses it, compared at one token: the taps of one call with Hugging Face's of the row alone.

B rows, W tokens of each in a call, L tokens of a row, T tokens that are compared, V vocabulary, F features
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification.decode.generation_gates import module_of_layer
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors
from trtllm_port.verification.judge.routing import force_rows
from trtllm_port.verification.judge.tap_errors import TapComparison, failure, judge
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.port_run import Expected, equivalent_indices
from trtllm_port.verification.taps.names import LOGITS
from trtllm_port.verification.taps.rotary_tables import match_table
from trtllm_port.verification.taps.runner import Forced, PortRunner, Rows


@dataclass(frozen=True, kw_only=True)
class TokenProbe:
    """What a port is probe, and the token at which it is compared.

    Attributes:
        rows, prefill: see `PortRunner.run_incrementally`.
        row, position: the token.
        alone: Hugging Face's taps of that row, run alone, with the logits [1, L, V].
        length: tokens of it.
        routing: per row, the routing that takes the place of the port's, see `force_rows`.
        note: says of the token where it is.
    """

    rows: Rows
    prefill: Sequence[int]
    row: int
    position: int
    alone: Mapping[str, Tensor] = field(repr=False)
    length: int
    routing: Sequence[Mapping[str, Tensor]] = field(repr=False)
    note: str


def right_taps(expected: Expected, found: Mapping[str, TapComparison]) -> tuple[str, ...]:
    """Return the taps whose difference means something: those that one prompt at once has as Hugging Face has them.

    Args:
        expected: with what they were compared.
        found: the comparisons.
    """
    right = (Verdict.PASS, Verdict.WARN)
    return tuple(
        tap
        for tap in expected.pairing.paired
        if tap in found and found[tap].verdict in right and not found[tap].benign and not found[tap].forced
        if tap not in expected.recording.forced and tap != LOGITS
    )


def compare_at_token(
    port: PortRunner, probe: TokenProbe, expected: Expected, taps: Sequence[str]
) -> dict[str, TapComparison]:
    """Compare taps of the call that computes a token, up to that token, and its logits.

    What is wrong with an earlier token may show in the logits of a later one only.

    Args:
        port: the port.
        probe: what it is probe.
        expected: the noise floors and the data type.
        taps: which.
    """
    found: dict[str, TapComparison] = {}
    routed = expected.recording.forced.intersection(port.tap_names)

    def observe(tap: str, value: Tensor, places: Sequence[range]) -> Tensor:
        if tap in wanted and probe.position in places[probe.row]:
            comparison = _compare(tap, value, places, probe, expected)
            if comparison is not None:
                found[tap] = replace(comparison, note=probe.note)
        return force_rows(probe.routing, tap, value, places) if tap in routed else value

    wanted: Collection[str] = frozenset(taps).intersection(expected.floors)
    try:
        rows_LV = port.run_incrementally(
            probe.rows, probe.prefill, forced=Forced(observe, sorted(routed.union(wanted)))
        )
    except LayerExecutionError as error:  # what came before it was compared
        module = module_of_layer(error.layer)
        if module in expected.modules:
            found[module] = failure(module, error.message)
    else:
        at = slice(probe.position, probe.position + 1)
        logits = _judged(LOGITS, rows_LV[probe.row][at], probe.alone[LOGITS][0][at], expected)
        found[LOGITS] = replace(logits, note=probe.note)
    for tap in equivalent_indices(found, probe.alone):
        del found[tap]
    return found


def _compare(
    tap: str, value: Tensor, places: Sequence[range], probe: TokenProbe, expected: Expected
) -> TapComparison | None:
    place, alone = places[probe.row], probe.alone.get(tap)  # None of an expert that no token of the row has chosen
    aligned = _aligned(_of_row(value, probe.row, len(places), len(place)), alone, len(place), probe.length)
    if aligned is None:
        return None  # no tensor per token
    own, reference, axis = aligned
    at = probe.position - place.start
    part, counterpart = own.narrow(axis, 0, at + 1), reference.narrow(axis, place.start, at + 1)
    table = counterpart if counterpart.shape == part.shape else match_table(counterpart, part)
    if table is None:
        return None
    own_TF, reference_TF = (each.movedim(axis, 0).reshape(at + 1, -1) for each in (part, table))
    return _judged(tap, own_TF, reference_TF, expected)


def _judged(tap: str, value_TF: Tensor, reference_TF: Tensor, expected: Expected) -> TapComparison:
    """Judge the first token that errs more than Hugging Face's worst one; where none does, the tap is right.

    Of a single token an average says little: where a tap has few features, some of its tokens err by far the most.
    """
    if value_TF.shape != reference_TF.shape:
        return failure(tap, f"shape {list(value_TF.shape)}, Hugging Face has {list(reference_TF.shape)}")
    floor = expected.floors[tap]
    limit = RATIO.warns * max(float(relative_error_per_token(floor).max()), ROUNDING[expected.dtype])
    wrong_T = ~(relative_error_per_token(token_errors(value_TF, reference_TF)) <= limit)
    if not bool(wrong_T.any()):
        return TapComparison(name=tap, verdict=Verdict.PASS)
    first = int(wrong_T.nonzero()[0])
    errors = token_errors(value_TF[first : first + 1], reference_TF[first : first + 1])
    return judge(tap, errors, floor, expected.dtype)


def _of_row(value: Tensor, row: int, rows: int, width: int) -> Tensor | None:
    """What is one row's of a tensor [B, ..., W, ...], [B * W, ...], or the same for all rows, [1, ...]."""
    if value.ndim == 0:
        return None
    if value.shape[0] == rows * width:
        return value[row * width : (row + 1) * width]
    if value.shape[0] in (1, rows):
        return value[row : row + 1] if value.shape[0] == rows else value
    return None


def _aligned(
    value: Tensor | None, reference: Tensor | None, width: int, length: int
) -> tuple[Tensor, Tensor, int] | None:
    """Both with as many dimensions, of which one counts the tokens: the port's W, Hugging Face's L; None if none does.

    Tokens are in one dimension or in two.
    """
    if value is None or reference is None or reference.is_complex():
        return None
    if value.ndim == reference.ndim + 1 and value.shape[0] == 1:
        value = value[0]
    elif reference.ndim == value.ndim + 1 and reference.shape[0] == 1:
        reference = reference[0]
    if value.ndim != reference.ndim:
        return None
    sizes = zip(value.shape, reference.shape, strict=True)
    axes = [axis for axis, pair in enumerate(sizes) if pair == (width, length)]
    return (value, reference, axes[0]) if len(axes) == 1 else None
