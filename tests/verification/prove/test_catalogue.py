"""The catalogue holds together: names are unique, true causes are causes that the checker knows."""

from __future__ import annotations

from trtllm_port.verification.experiments.catalogue import IDS
from trtllm_port.verification.prove.catalogue import CATALOGUE

IN_USE = {
    "decode",
    "batch",
    "logits_indices",
    "table.rows",
}  # named without a replay, see `step_divergence.py` and `embedding_rows.py`


def test_there_are_enough_bugs_and_each_has_its_name() -> None:
    assert len(CATALOGUE) >= 30
    assert len({bug.id for bug in CATALOGUE}) == len(CATALOGUE)
    assert {bug.kind for bug in CATALOGUE} == {"source", "weights", "quantized"}


def test_every_true_cause_is_one_that_can_be_named() -> None:
    for bug in CATALOGUE:
        assert bug.causes
        assert set(bug.causes) <= IDS | IN_USE, bug.id
