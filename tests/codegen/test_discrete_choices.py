"""Choices near a tie are compared as sets; what belongs to them only where both sides chose alike."""

from __future__ import annotations

import torch

from trtllm_port.codegen.discrete_choices import choices, forced, most_others, other_choices, where_chosen_alike


def test_a_router_is_told_from_an_indexer_and_from_ids() -> None:
    taps = {
        "gate": torch.rand(6, 8),
        "gate:1": torch.rand(6, 2),
        "gate:2": torch.zeros(6, 2, dtype=torch.int64),
        "indexer": torch.zeros(2, 3, 4, dtype=torch.int32),
        "buckets": torch.zeros(6, 6, dtype=torch.int64),
        "lengths": torch.zeros(6, dtype=torch.int64),
    }
    assert choices(taps) == {"gate:2": "gate:2", "gate:1": "gate:2", "indexer": "indexer"}


def test_the_order_of_experts_does_not_matter() -> None:
    expected = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    assert other_choices(expected.flip(-1), expected, None) == 0
    other = expected.clone()
    other[1, 0] = 7
    assert other_choices(other, expected, None) == 0.25 == most_others(expected)
    assert other_choices(expected[:, :1], expected, None) == float("inf")


def test_slots_behind_a_token_do_not_matter() -> None:
    expected = torch.tensor([[[0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 2, 3]]])
    other = torch.tensor([[[0, 3, 2], [1, 0, 3], [0, 1, 2], [0, 2, 3]]])
    assert other_choices(other, expected, 0) == 0.25  # only the last token sees what it chose otherwise
    assert other_choices(other, expected, 4) == 0.75


def test_weights_are_compared_of_tokens_that_chose_alike() -> None:
    expected_choice = torch.tensor([[0, 1], [2, 3], [4, 5]])
    found_choice = torch.tensor([[1, 0], [2, 7], [4, 5]])
    expected, found = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.4, 0.6], [9, 9], [0.9, 0.1]])
    ours, theirs = where_chosen_alike(found, expected, found_choice, expected_choice)
    assert torch.equal(ours, theirs)
    assert ours.shape == (2, 2)


def test_a_port_goes_on_with_the_choice_that_it_is_given() -> None:
    chosen = {"gate:2": torch.tensor([[3, 1]])}
    own = torch.tensor([[3, 2]], dtype=torch.int32)
    given = forced(chosen, "gate:2", own)
    assert given is not None
    assert (given.tolist(), given.dtype) == ([[3, 1]], torch.int32)
    assert forced(chosen, "gate:2", own[:, :1]) is None
    assert forced(chosen, "gate", own) is None
