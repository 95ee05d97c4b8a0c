"""What elementwise functions refuse, and the constants that scalars become."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trtllm_port import layers as L
from trtllm_port.errors import NetworkError


def test_two_data_types_are_refused_by_name(evaluate: Any) -> None:
    with pytest.raises(NetworkError, match="`mul` of float32 and float16") as caught:
        evaluate(lambda a, b: a * b, torch.zeros(2, 2), torch.zeros(2, 2).half())
    assert "cast" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: t * 0.5, "scalar 0.5 beside an int64 tensor"),
        (lambda t: t / t, "`div` of int64"),
        (lambda t: t & t, "`and` of int64"),
        (lambda t: ~t, "`not` of int64"),
        (lambda t: L.where(t, t, t), "`where` of int64"),
        (lambda t: L.exp(t), "`exp` of int64"),
        (lambda t: t + "x", "no tensor, parameter or scalar"),
        (lambda t: t.to("float99"), "unknown data type `float99`"),
        (lambda t: t + L.Parameter((2,)), "int64 and float32"),
        (lambda t: L.topk(t, 0), "`topk` of 0 numbers"),
        (lambda t: L.topk(t, 3841), "`topk` of 3841 numbers"),
    ],
)
def test_wrong_operands_are_refused(evaluate: Any, function: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        evaluate(function, torch.zeros(2, 2, dtype=torch.int64))


def test_what_tensorrt_refuses_is_quoted(evaluate: Any) -> None:
    with pytest.raises(NetworkError, match=r"TensorRT refuses `add`: .*broadcast"):
        evaluate(lambda a, b: a + b, torch.zeros(2, 2, 3), torch.zeros(2, 2, 4))


def test_a_tensor_has_no_truth(evaluate: Any) -> None:
    with pytest.raises(TypeError, match="where"):
        evaluate(lambda t: t if t > 0 else -t, torch.zeros(2, 2))


def test_scalars_are_constants_of_the_other_operands_type_and_are_shared(evaluate: Any) -> None:
    x = torch.randn(2, 3).half()
    network = evaluate.define(lambda t: (t + 1.5) * 1.5 - (2 - t) / 3 + 1.5, (x,))
    assert sorted(value.item() for value in network.constants.values()) == [1.5, 2.0, 3.0]
    assert {value.dtype for value in network.constants.values()} == {torch.float16}
    torch.testing.assert_close(*evaluate.run(network, x), (x + 1.5) * 1.5 - (2 - x) / 3 + 1.5)


def test_signed_zeros_are_two_constants(evaluate: Any) -> None:
    found = evaluate(lambda t: 1.0 / (t * 0.0) + t * (1.0 / (t * -0.0)), torch.tensor([[1.0]]))
    assert math.isnan(found.item())  # inf - inf


def test_comparisons_with_nan_are_false(evaluate: Any) -> None:
    x = torch.tensor([[float("nan"), 1.0]])
    for ours, theirs in ((L.ge, torch.ge), (L.le, torch.le), (L.ne, torch.ne)):
        assert torch.equal(evaluate(lambda t, f=ours: f(t, 1.0), x), theirs(x, 1.0))


def test_python_operators(evaluate: Any) -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    found = evaluate(lambda a, b: -a - 1 + 2.0**a + (1 - b) / 2.0 * (a @ b.transpose(0, 1)).sum(-1, True), x, y)
    torch.testing.assert_close(found, -x - 1 + 2.0**x + (1 - y) / 2.0 * (x @ y.T).sum(-1, True))
    n = torch.tensor([[-7, 7], [3, -3]])
    found = evaluate(lambda a: a // 2 * 10 + a % 4, n)
    assert torch.equal(found, n // 2 * 10 + n % 4)


def test_where_of_two_scalars_has_the_networks_type(evaluate: Any) -> None:
    x = torch.randn(2, 3)
    torch.testing.assert_close(evaluate(lambda t: L.where(t > 0, 1.0, -1.0), x), torch.where(x > 0, 1.0, -1.0))


def test_a_function_without_a_tensor_has_no_network() -> None:
    with pytest.raises(NetworkError, match="none of the operands"):
        L.add(L.Parameter((2,)), 1.0)
