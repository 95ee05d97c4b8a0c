"""A port as `run` uses it, compared at one token: the taps of one call with Hugging Face's of the row alone.

B rows, W tokens of each in a call, L tokens of a row, F features
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from trtllm_port.runtime.reference.errors import LayerExecutionError
from trtllm_port.verification.compare import TapComparison, compare_tap, failure, judge
from trtllm_port.verification.incremental import module_of_layer
from trtllm_port.verification.metrics import token_errors
from trtllm_port.verification.ports import Expected, told_otherwise
from trtllm_port.verification.rotary import match_table
from trtllm_port.verification.routing import force_rows
from trtllm_port.verification.runners import PortRunner
from trtllm_port.verification.taps import LOGITS
from trtllm_port.verification.verdict import Verdict, worst


@dataclass(frozen=True, kw_only=True)
class Fed:
    """What a port is fed, and the token at which it is compared.

    Attributes:
        rows, prefill: see `PortRunner.run_incrementally`.
        row, position: the token.
        alone: Hugging Face's taps of that row, run alone, with the logits [1, L, V].
        length: tokens of it.
        routing: per row, the routing that takes the place of the port's, see `force_rows`.
        note: says of the token where it is.
    """

    rows: Sequence[Sequence[int]]
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


def token_comparisons(port: PortRunner, fed: Fed, expected: Expected, taps: Sequence[str]) -> dict[str, TapComparison]:
    """Compare taps of the call that computes a token, and its logits: that token, and those before it in the same call.

    What is wrong with an earlier token may show in the logits of a later one only.

    Args:
        port: the port.
        fed: what it is fed.
        expected: the noise floors and the data type.
        taps: which.
    """
    found: dict[str, TapComparison] = {}
    forced = expected.recording.forced.intersection(port.tap_names)

    def observe(tap: str, value: Tensor, places: Sequence[range]) -> Tensor:
        if tap in wanted and fed.position in places[fed.row]:
            comparison = _compare(tap, value, places, fed, expected)
            if comparison is not None:
                found[tap] = replace(comparison, note=fed.note)
        return force_rows(fed.routing, tap, value, places) if tap in forced else value

    wanted: Collection[str] = frozenset(taps).intersection(expected.floors)
    try:
        rows_LV = port.run_incrementally(fed.rows, fed.prefill, force=observe, taps=sorted(forced.union(wanted)))
    except LayerExecutionError as error:  # what came before it was compared
        module = module_of_layer(error.layer)
        if module in expected.modules:
            found[module] = failure(module, error.message)
    else:
        logits_1V, alone_LV = rows_LV[fed.row][fed.position : fed.position + 1], fed.alone[LOGITS][0]
        errors = compare_tap(
            LOGITS, logits_1V, alone_LV[fed.position : fed.position + 1], expected.floors[LOGITS], expected.dtype
        )
        found[LOGITS] = replace(errors, note=fed.note)
    for tap in told_otherwise(found, fed.alone):
        del found[tap]
    return found


def _compare(tap: str, value: Tensor, places: Sequence[range], fed: Fed, expected: Expected) -> TapComparison | None:
    place = places[fed.row]
    aligned = _aligned(_of_row(value, fed.row, len(places), len(place)), fed.alone[tap], len(place), fed.length)
    if aligned is None:
        return None  # no tensor per token
    own, reference, axis = aligned
    at = fed.position - place.start
    found = []
    for start in {0, at}:
        count = at + 1 - start
        part = own.narrow(axis, start, count)
        counterpart = reference.narrow(axis, place.start + start, count)
        if part.shape != counterpart.shape:
            table = match_table(counterpart, part)
            if table is None:
                return None
            counterpart = table
        found.append(judge(tap, token_errors(part, counterpart), expected.floors[tap], expected.dtype))
    severest = worst(each.verdict for each in found)
    return next(each for each in found if each.verdict is severest)


def _of_row(value: Tensor, row: int, rows: int, width: int) -> Tensor | None:
    """What is one row's of a tensor [B, ..., W, ...], [B * W, ...], or the same for all rows, [1, ...]."""
    if value.ndim == 0:
        return None
    if value.shape[0] == rows * width:
        return value[row * width : (row + 1) * width]
    if value.shape[0] in (1, rows):
        return value[row : row + 1] if value.shape[0] == rows else value
    return None


def _aligned(value: Tensor | None, reference: Tensor, width: int, length: int) -> tuple[Tensor, Tensor, int] | None:
    """Both with as many dimensions, of which one counts the tokens: the port's W, Hugging Face's L; None if none does.

    Tokens are in one dimension or in two.
    """
    if value is None or reference.is_complex():
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
