"""All rows of embedding tables: a prompt looks up few of them, and the others could be anything.

A table is looked up by token ids or by positions; which of the two shows in the reference's run. Then both sides are
asked for every row, in pieces, and nothing behind the table is computed. Output heads need no such run: each of their
rows gives a logit of every token.

L tokens of a piece, E size of a row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trtllm_port.verification.causes.signatures import Cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors
from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.judge.thresholds import ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face import Table
from trtllm_port.verification.sides.session_runner import PortRunner
from trtllm_port.verification.taps.names import input_of

PIECE = 4096  # rows at once
ROUNDINGS = 4.0  # a row is copied, and multiplied once or twice; both sides round each time
NAMED = 3
NO_TAP = "the port does not tap it"
NEITHER = "what it is given is neither the token nor the position of each row"


class Index(NamedTuple):
    """What a table is looked up by: "tokens", or "positions" plus an offset."""

    by: str
    offset: int = 0

    @classmethod
    def of(cls, given: Tensor, ids: Sequence[int]) -> Index | None:
        """Tell it by what a table was given for a prompt; None if it is neither.

        Args:
            given: the table's input.
            ids: the prompt.
        """
        if given.is_floating_point() or given.numel() != len(ids) or len(ids) < 2:
            return None
        given_L, ids_L = given.flatten().cpu(), torch.tensor(ids)
        if torch.equal(given_L, ids_L):
            return cls("tokens")
        offset = int(given_L[0])
        return cls("positions", offset) if torch.equal(given_L, offset + torch.arange(len(ids))) else None


def indices_of(taps: Mapping[str, Tensor], tables: Mapping[str, Table], ids: Sequence[int]) -> dict[str, Index]:
    """Tell of each table what it is looked up by, as far as that is known.

    Args:
        taps: the reference's.
        tables: by path.
        ids: the prompt.
    """
    found: dict[str, Index] = {}
    for path, table in tables.items():
        given = taps.get(input_of(path))
        index = None if given is None else Index.of(given, ids)
        if given is not None and index is not None and _follows(table, given.flatten()):
            found[path] = index
    return found


def _follows(table: Table, given_L: Tensor) -> bool:
    """Whether a table's rows are those of what it is given: BART's positions are given tokens, and count them."""
    return torch.equal(table.look_up(given_L).flip(0), table.look_up(given_L.flip(0)))


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """What became of all tables.

    Attributes:
        rows: how many rows were compared, by table.
        wrong: the tables with wrong rows.
        left_out: tables whose rows were not all compared, with the reason.
    """

    rows: Mapping[str, int]
    wrong: Mapping[str, TapComparison]
    left_out: Mapping[str, str]


def compare_tables(
    port: PortRunner, tables: Mapping[str, Table], indices: Mapping[str, Index], dtype: str
) -> TableResult:
    """Look up every row of every table on both sides.

    Args:
        port: the port.
        tables: Hugging Face's, in the port's dtype, by path.
        indices: what each is looked up by.
        dtype: of both.
    """
    rows: dict[str, int] = {}
    wrong: dict[str, TapComparison] = {}
    left_out: dict[str, str] = {}
    for path, table in tables.items():
        if path not in port.tap_names or path not in indices:
            left_out[path] = NEITHER if path in port.tap_names else NO_TAP
            continue
        index = indices[path]
        found = _wrong_rows(port, path, table, index, ROUNDINGS * ROUNDING[dtype])
        rows[path] = table.rows - index.offset
        if found:
            named = ", ".join(map(str, found[:NAMED])) + (" …" if len(found) > NAMED else "")
            wrong[path] = failure(path, f"{len(found)} of {rows[path]} rows are wrong: {index.by} {named}")
    return TableResult(rows=rows, wrong=wrong, left_out=left_out)


def _wrong_rows(port: PortRunner, path: str, table: Table, index: Index, limit: float) -> list[int]:
    """Return the tokens or positions whose rows differ."""
    wrong: list[int] = []
    for start in range(0, table.rows - index.offset, PIECE):
        asked_L = torch.arange(start, min(start + PIECE, table.rows - index.offset))
        other_L = torch.zeros_like(asked_L)
        ids_L, positions_L = (asked_L, other_L) if index.by == "tokens" else (other_L, asked_L)
        value, expected = port.look_up(path, ids_L, positions_L), table.look_up(asked_L + index.offset)
        if value.numel() != expected.numel():
            return asked_L.tolist()
        error_L = _errors(value.reshape(expected.shape), expected)
        wrong += asked_L[~(error_L <= limit)].tolist()  # NaN is wrong, too
    return wrong


def _errors(value: Tensor, expected: Tensor) -> Tensor:
    if torch.equal(value, expected):
        return torch.zeros(len(expected))
    return relative_error_per_token(token_errors(value, expected))


def table_gate(phase: str, result: TableResult) -> list[Gate]:
    """Judge all tables; no gate where there are none."""
    if not result.rows:
        return []
    reason = f"all {sum(result.rows.values()):,} rows of {', '.join(f'`{path}`' for path in result.rows)}"
    if result.wrong:
        reason = "; ".join(f"`{path}`: {found.note}" for path, found in result.wrong.items())
    return [
        Gate(
            name="tables.rows",
            phase=phase,
            verdict=Verdict.FAIL if result.wrong else Verdict.PASS,
            value=float(len(result.wrong)),
            threshold=0.0,
            reason=reason,
            source="a row is copied: no more than roundings can differ",
        )
    ]


def table_causes(result: TableResult) -> dict[str, tuple[Cause, ...]]:
    """Return what is wrong with each wrong table."""
    return {
        path: (
            Cause(
                id="table.rows",
                cause="rows of the table that the prompt does not look up are not Hugging Face's",
                status="confirmed",
                evidence=f"`{path}`: {found.note}; those that the prompt looks up are right",
                place=f"`{path}` in `model.py`, and what `convert.py` does with its weight",
            ),
        )
        for path, found in result.wrong.items()
    }
