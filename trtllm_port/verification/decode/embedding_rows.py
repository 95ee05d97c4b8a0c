"""All rows of embedding tables: a prompt looks up few of them, and the others could be anything.

Both sides are asked for every row, in pieces, and nothing behind the table is computed. Output heads need no such run:
each of their rows gives a logit of every token.

L tokens of a piece, E size of a row
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.metrics import relative_error_per_token, token_errors
from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.judge.thresholds import ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.embedding_tables import EmbeddingTable, TableIndex
from trtllm_port.verification.taps.runner import PortRunner

PIECE = 4096  # rows at once
ROUNDINGS = 4.0  # a row is copied, and multiplied once or twice; both sides round each time
NAMED = 3
NO_TAP = "the port does not tap it"
NEITHER = "what it is given is neither the token nor the position of each row"


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
    port: PortRunner, tables: Mapping[str, EmbeddingTable], indices: Mapping[str, TableIndex], dtype: str
) -> TableResult:
    """Look up every row of every table on both sides.

    Args:
        port: the port.
        tables: Hugging Face's, in the port's dtype, by path.
        indices: what each is looked up by.
        dtype: of both.
    """
    by_tokens = (table.rows for path, table in tables.items() if path in indices and indices[path].by == "tokens")
    vocabulary = next(by_tokens, 0)  # the first looks up the tokens as they are; further ones may have more rows
    rows: dict[str, int] = {}
    wrong: dict[str, TapComparison] = {}
    left_out: dict[str, str] = {}
    for path, table in tables.items():
        if path not in port.tap_names or path not in indices:
            left_out[path] = NEITHER if path in port.tap_names else NO_TAP
            continue
        index = indices[path]
        reached = min(table.rows, vocabulary) if index.by == "tokens" else table.rows
        found = _wrong_rows(port, path, table._replace(rows=reached), index, ROUNDINGS * ROUNDING[dtype])
        rows[path] = reached - index.offset
        if found:
            named = ", ".join(map(str, found[:NAMED])) + (" …" if len(found) > NAMED else "")
            wrong[path] = failure(path, f"{len(found)} of {rows[path]} rows are wrong: {index.by} {named}")
    return TableResult(rows=rows, wrong=wrong, left_out=left_out)


def _wrong_rows(port: PortRunner, path: str, table: EmbeddingTable, index: TableIndex, limit: float) -> list[int]:
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
