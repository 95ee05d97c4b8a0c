"""Loops: trip limits, iterators, recurrences, outputs, one inside another."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from torch.testing import assert_close

from trtllm_port.errors import PortError
from trtllm_port.runtime.reference import LayerExecutionError, ReferenceExecutor

SUM, PROD, LESS = trt.ElementWiseOperation.SUM, trt.ElementWiseOperation.PROD, trt.ElementWiseOperation.LESS
COUNT, WHILE = trt.TripLimit.COUNT, trt.TripLimit.WHILE
LAST, CONCATENATE, REVERSE = trt.LoopOutput.LAST_VALUE, trt.LoopOutput.CONCATENATE, trt.LoopOutput.REVERSE


def _count(net: Any, trips: int) -> Any:
    return net.input(torch.tensor(trips, dtype=torch.int32))


def _binary(net: Any, a: Any, b: Any, op: Any) -> Any:
    return net.definition.add_elementwise(a, b, op).get_output(0)


def _output(loop: Any, tensor: Any, kind: Any, length: Any = None, axis: int = 0) -> Any:
    layer = loop.add_loop_output(tensor, kind, axis)
    if length is not None:
        layer.set_input(1, length)
    return layer.get_output(0)


@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(net: Any, reverse: bool) -> None:
    """What numpy calls cumsum, as a loop over the rows, with every kind of output."""
    x = torch.randn(4, 3)
    trips = _count(net, 4)
    loop = net.definition.add_loop()
    loop.add_trip_limit(trips, COUNT)
    row = loop.add_iterator(net.input(x), 0, reverse).get_output(0)
    total = loop.add_recurrence(net.constant(torch.zeros(3)))
    following = _binary(net, total.get_output(0), row, SUM)
    total.set_input(1, following)
    last, rows, columns, backwards = net.run(
        _output(loop, total.get_output(0), LAST),
        _output(loop, following, CONCATENATE, trips),
        _output(loop, following, CONCATENATE, trips, axis=1),
        _output(loop, following, REVERSE, trips),
    )
    sums = (x.flip(0) if reverse else x).cumsum(0)
    assert_close(last, sums[-1])
    assert_close(rows, sums)
    assert_close(columns, sums.T)
    assert_close(backwards, sums.flip(0))


def test_while_asks_before_each_iteration(net: Any) -> None:
    """Doubles as long as the value is below a limit: not at all if it is not."""
    results = []
    for start in (1.0, 100.0):
        fresh = type(net)()
        loop = fresh.definition.add_loop()
        value = loop.add_recurrence(fresh.input(torch.tensor(start)))
        loop.add_trip_limit(_binary(fresh, value.get_output(0), fresh.constant(torch.tensor(50.0)), LESS), WHILE)
        value.set_input(1, _binary(fresh, value.get_output(0), fresh.constant(torch.tensor(2.0)), PROD))
        results += [tensor.item() for tensor in fresh.run(_output(loop, value.get_output(0), LAST))]
    assert results == [64.0, 100.0]


def test_no_iteration_leaves_the_first_value_and_nothing_stacked(net: Any) -> None:
    trips = _count(net, 0)
    loop = net.definition.add_loop()
    loop.add_trip_limit(trips, COUNT)
    value = loop.add_recurrence(net.input(torch.tensor([7.0])))
    value.set_input(1, _binary(net, value.get_output(0), value.get_output(0), SUM))
    last, stacked = net.run(
        _output(loop, value.get_output(0), LAST), _output(loop, value.get_output(0), CONCATENATE, trips)
    )
    assert last.tolist() == [7.0]
    assert stacked.shape == (0, 1)


def test_a_loop_in_a_loop(net: Any) -> None:
    """x to the power of 2, three times over: the inner loop multiplies, the outer starts it again."""
    outer = net.definition.add_loop()
    outer.add_trip_limit(_count(net, 3), COUNT)
    x = outer.add_recurrence(net.input(torch.tensor(3.0)))
    inner = net.definition.add_loop()
    inner.add_trip_limit(_count(net, 1), COUNT)
    product = inner.add_recurrence(x.get_output(0))
    product.set_input(1, _binary(net, product.get_output(0), x.get_output(0), PROD))
    x.set_input(1, _output(inner, product.get_output(0), LAST))
    (result,) = net.run(_output(outer, x.get_output(0), LAST))
    assert result.item() == 3.0**8


def test_loop_invariants_are_computed_once_outside(net: Any) -> None:
    invariant = net.definition.add_unary(net.input(torch.tensor(1.0)), trt.UnaryOperation.EXP)
    loop = net.definition.add_loop()
    loop.add_trip_limit(_count(net, 5), COUNT)
    total = loop.add_recurrence(net.constant(torch.tensor(0.0)))
    total.set_input(1, _binary(net, total.get_output(0), invariant.get_output(0), SUM))
    executor = ReferenceExecutor(net.file(_output(loop, total.get_output(0), LAST)), {})
    assert [step.layer.type for step in executor._steps].count("UNARY") == 1
    assert_close(executor.run(net.feeds)["y0"], 5 * torch.tensor(1.0).exp())


def test_a_stack_that_the_iterations_do_not_fill_is_an_error(net: Any) -> None:
    loop = net.definition.add_loop()
    loop.add_trip_limit(_count(net, 2), COUNT)
    value = loop.add_recurrence(net.input(torch.tensor(1.0)))
    value.set_input(1, _binary(net, value.get_output(0), value.get_output(0), SUM))
    stacked = _output(loop, value.get_output(0), CONCATENATE, _count(net, 3))
    with pytest.raises(LayerExecutionError, match="the rest is undefined"):
        net.run(stacked)


def test_a_tensor_in_a_loop_is_no_tap(net: Any) -> None:
    loop = net.definition.add_loop()
    loop.add_trip_limit(_count(net, 2), COUNT)
    value = loop.add_recurrence(net.input(torch.tensor(1.0)))
    doubled = _binary(net, value.get_output(0), value.get_output(0), SUM)
    doubled.name = "doubled"
    value.set_input(1, doubled)
    executor = ReferenceExecutor(net.file(_output(loop, value.get_output(0), LAST)), {})
    with pytest.raises(PortError, match="no tap 'doubled' outside of its loops"):
        executor.run(net.feeds, taps=["doubled"])
