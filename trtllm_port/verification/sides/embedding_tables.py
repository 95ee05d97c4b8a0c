"""Embedding tables, and what each is looked up by: token ids or positions, which shows in the reference's run.

L tokens, E size of a row
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trtllm_port.verification.taps.names import input_of


class EmbeddingTable(NamedTuple):
    """An embedding table: how many rows it has, and what gives them [L, E] for indices [L]."""

    rows: int
    look_up: Callable[[Tensor], Tensor]


class TableIndex(NamedTuple):
    """What a table is looked up by: "tokens", or "positions" plus an offset."""

    by: str
    offset: int = 0

    @classmethod
    def of(cls, given: Tensor, ids: Sequence[int]) -> TableIndex | None:
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


def table_indices(
    taps: Mapping[str, Tensor], tables: Mapping[str, EmbeddingTable], ids: Sequence[int]
) -> dict[str, TableIndex]:
    """Tell of each table what it is looked up by, as far as that is known.

    Args:
        taps: the reference's.
        tables: by path.
        ids: the prompt.
    """
    found: dict[str, TableIndex] = {}
    for path, table in tables.items():
        given = taps.get(input_of(path))
        index = None if given is None else TableIndex.of(given, ids)
        if given is not None and index is not None and _follows(table, given.flatten()):
            found[path] = index
    return found


def _follows(table: EmbeddingTable, given_L: Tensor) -> bool:
    """Whether a table's rows are those of what it is given: BART's positions are given tokens, and count them."""
    try:
        return torch.equal(table.look_up(given_L).flip(0), table.look_up(given_L.flip(0)))
    except (TypeError, ValueError, IndexError, RuntimeError):  # BigBirdPegasus' positions are asked for by a shape
        return False
