from __future__ import annotations

import pytest
import torch

from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.port_run import equivalent_indices

IDS, STATES = torch.tensor([[5, 7]]), torch.zeros(1, 2, 4)


@pytest.mark.parametrize(
    ("given", "output", "found"),
    [
        (IDS, TapComparison(name="e", verdict=Verdict.PASS), ["e:input"]),
        (IDS, failure("e", "another value"), []),
        (STATES, TapComparison(name="e", verdict=Verdict.PASS), []),
    ],
    ids=["other_indices", "another_value", "no_indices"],
)
def test_indices_that_differ_do_not_matter_where_the_values_are_right(
    given: torch.Tensor, output: TapComparison, found: list[str]
) -> None:
    comparisons = {"e:input": failure("e:input", "differs"), "e": output}
    assert equivalent_indices(comparisons, {"e:input": given, "e": STATES, "logits": STATES}) == found


def test_indices_that_are_equal_are_compared() -> None:
    right = TapComparison(name="e:input", verdict=Verdict.PASS)
    assert equivalent_indices({"e:input": right, "e": right}, {"e:input": IDS, "e": STATES}) == []
