"""Values that a run makes while somebody waits for them."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from contextlib import closing
from functools import partial

import pytest
import torch
from torch import Tensor

from trtllm_port.verification.phases.lockstep_taps import AlteredError, Awaited, PassingTaps
from trtllm_port.verification.phases.openmp import end_own_workers

ORDER = ("embed:input", "embed", "layers.0:input", "layers.0.mlp:input", "layers.0.mlp", "layers.0", "logits")


def counting(made: list[str], values: MutableMapping[str, int]) -> None:
    for number, tap in enumerate(ORDER):
        made.append(tap)
        values[tap] = number


def test_a_run_goes_no_further_than_is_asked_for() -> None:
    made: list[str] = []
    with closing(Awaited[int](lambda values: counting(made, values))) as values:
        assert made == []
        assert values["layers.0:input"] == 2
        assert made == list(ORDER[:3])
        assert values["embed"] == 1  # is there already
        assert "layers.0.attention" not in values  # its layer has ended
        assert made == list(ORDER[:6])
        assert values.get("norm") is None
        assert tuple(values) == ORDER


def test_a_run_goes_on_to_where_it_may_rest() -> None:
    made: list[str] = []
    work = partial(counting, made)
    with closing(Awaited[int](work, rests=lambda tap: tap == "layers.0")) as values:
        assert values["embed"] == 1
        assert made == list(ORDER[:6])
        assert values["layers.0.mlp"] == 4
        assert made == list(ORDER[:6])


def test_workers_that_were_ended_are_there_again() -> None:
    x = torch.randn(600, 600)
    product = x @ x
    end_own_workers()
    assert torch.equal(x @ x, product)


def test_a_run_that_is_closed_ends_where_it_is() -> None:
    made: list[str] = []
    before = threading.active_count()
    with closing(Awaited[int](lambda values: counting(made, values))) as values:
        assert "embed" in values
    assert len(made) <= 3
    assert threading.active_count() == before
    with closing(Awaited[int](lambda values: counting(made, values))):
        pass  # one that nobody asked for anything
    assert threading.active_count() == before


def test_an_error_reaches_who_waits_through_other_runs() -> None:
    def fail(values: MutableMapping[str, int]) -> None:
        values["embed"] = 1
        raise ValueError("the layer does not fit")

    with closing(Awaited[int](fail)) as first:

        def copy(values: MutableMapping[str, int]) -> None:
            for tap in ORDER[1:]:
                values[tap] = first[tap]

        with closing(Awaited[int](copy)) as second:
            assert second["embed"] == 1
            with pytest.raises(ValueError, match="does not fit"):
                second.get("layers.0:input")


def test_a_tensor_is_gone_when_it_was_read_often_enough() -> None:
    def work(values: MutableMapping[str, Tensor]) -> None:
        values["embed"] = torch.ones(2, 3)
        values["logits"] = torch.ones(1, 2, 3)

    with closing(PassingTaps(work, lambda tap: None if tap == "logits" else 2)) as taps:
        assert [taps["embed"].device.type for _ in range(3)] == ["cpu", "cpu", "meta"]
        assert taps["embed"].shape == (2, 3)
        assert not any(taps["logits"].is_meta for _ in range(9))


def test_a_tensor_that_was_written_into_is_not_handed_out() -> None:
    def work(values: MutableMapping[str, Tensor]) -> None:
        embedded = torch.ones(2)
        values["embed"] = embedded
        embedded += 1
        values["layers.0"] = embedded

    with closing(PassingTaps(work, lambda _: 2)) as taps:
        assert taps["embed"].sum() == 2
        assert taps["layers.0"].sum() == 4
        with pytest.raises(AlteredError):
            taps.get("embed")
