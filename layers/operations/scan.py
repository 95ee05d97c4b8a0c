"""A computation that goes from token to token: TensorRT's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trtllm_port.layers.definition.network import Network, Tensor
from trtllm_port.layers.definition.operands import network_of
from trtllm_port.layers.operations.shaping import shape, squeeze

Step = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Tensor]]


def scan(step: Step, state: Tensor, inputs: Sequence[Tensor], *, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Run a step over all tokens, one after the other.

    Args:
        step: (state, the inputs of one token) → (the next state, the token's output). Its constants are made outside.
        state: before the first token; every next one has its shape and data type.
        inputs: tensors that have one size along `dim`, the tokens.
        dim: where the tokens are in the inputs, and in the output.

    Returns:
        The outputs of all tokens, stacked along `dim`, and the last state.
    """
    network = network_of(state, *inputs)
    trt = network.trt
    count = shape(inputs[0], dim)
    loop = network.definition.add_loop()
    network.loops += 1
    loop.add_trip_limit(squeeze(count, 0).itensor, trt.TripLimit.COUNT)
    tokens = [network.add("token", loop.add_iterator(x.itensor, dim)) for x in inputs]
    recurrence = loop.add_recurrence(state.itensor)
    following, output = step(network.add("state", recurrence), tokens)
    recurrence.set_input(1, following.itensor)
    outputs = _leave(network, loop, output, trt.LoopOutput.CONCATENATE, dim, count)
    last = network.add("last", loop.add_loop_output(recurrence.get_output(0), trt.LoopOutput.LAST_VALUE, 0))
    return outputs, last


def _leave(network: Network, loop: Any, output: Tensor, kind: Any, dim: int, count: Tensor) -> Tensor:
    layer = loop.add_loop_output(output.itensor, kind, dim)
    layer.set_input(1, squeeze(count, 0).itensor)
    return network.add("outputs", layer)
