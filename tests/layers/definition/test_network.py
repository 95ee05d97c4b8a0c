"""Names, taps, constants and errors of a network that is being defined."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtllm_port.errors import CheckpointError, EnvironmentLackError, NetworkError
from trtllm_port.layers import Linear, Module, ModuleList, Network, Parameter, Tensor
from trtllm_port.layers.definition.flavour import load_flavour

X = torch.randn(2, 3, 4)


class Twice(Module):
    """A module that is called two times, one that returns its input, a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = Parameter((4,))
        self.proj = Linear(4, 4, bias=False)
        self.same = Same()

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.proj(self.proj(x))) * self.gain


class Same(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Root(Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = ModuleList([Twice()])
        self.tied = Linear(4, 4, bias=False)
        self.tied.weight = self.blocks[0].proj.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.blocks[0](x))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"blocks.0.gain": torch.randn(4), "blocks.0.proj.weight": torch.randn(4, 4)}


@pytest.fixture
def network(evaluate: Any, weights: dict[str, torch.Tensor]) -> Network:
    root = Root()
    defined: Network = evaluate.define(root, (X,), module=root, weights=weights)
    return defined


def test_taps_name_every_module_and_its_input(network: Network) -> None:
    assert network.taps == {
        "blocks.0.proj": "blocks.0.proj",
        "blocks.0.proj:input": "x0",
        "blocks.0.proj#2": "blocks.0.proj#2",
        "blocks.0.proj#2:input": "blocks.0.proj",
        "blocks.0.same": "blocks.0.proj#2",
        "blocks.0.same:input": "blocks.0.proj#2",
        "blocks.0": "blocks.0",
        "blocks.0:input": "x0",
        "tied": "y0",  # the network's output keeps its reserved name
        "tied:input": "blocks.0",
    }


def test_taps_have_the_values_of_the_modules(evaluate: Any, network: Network, weights: dict[str, torch.Tensor]) -> None:
    proj, gain = weights["blocks.0.proj.weight"], weights["blocks.0.gain"]
    torch.testing.assert_close(*evaluate.run(network, X), X @ proj.T @ proj.T * gain @ proj.T)


def test_layers_are_named_by_module_and_operation(network: Network) -> None:
    names = [network.definition.get_layer(i).name for i in range(network.definition.num_layers)]
    assert "blocks.0.proj/matmul" in names
    assert "blocks.0.proj/matmul_2" in names
    assert "blocks.0/mul" in names
    assert len(set(names)) == len(names)


def test_a_parameter_is_one_constant_without_a_copy(network: Network, weights: dict[str, torch.Tensor]) -> None:
    assert network.parameters == {name: name for name in weights}
    for name, constant in network.parameters.items():
        assert network.constants[name].data_ptr() == weights[constant].data_ptr()
        assert network.constants[name].shape[-1] == 4


def test_the_constants_shapes_are_the_layers(network: Network) -> None:
    trt = network.trt
    for i in range(network.definition.num_layers):
        layer = network.definition.get_layer(i)
        if layer.type == trt.LayerType.CONSTANT:
            layer.__class__ = trt.IConstantLayer
            assert tuple(layer.shape) == tuple(network.constants[layer.get_output(0).name].shape)


def test_unused_outputs_of_inputs_are_copies(evaluate: Any) -> None:
    """An input that is an output, and one tensor that is two outputs."""
    x, y = evaluate(lambda t: (t, t), X)
    assert torch.equal(x, X)
    assert torch.equal(y, X)


def test_bool_constants(evaluate: Any) -> None:
    mask = torch.tensor([True, False, True, False])
    found = evaluate(lambda t: t.network.constant(mask) & (t > 0), X)
    assert torch.equal(found, mask & (X > 0))


class Mixed(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.to("float16")


def test_errors_name_the_module(evaluate: Any) -> None:
    module = ModuleList([ModuleList(), Mixed()])
    with pytest.raises(NetworkError, match="in `1`: `add` of float32 and float16"):
        evaluate.define(lambda t: module[1](t), (X,), module=module)


def test_weights_that_are_absent_or_wrong(evaluate: Any, weights: dict[str, torch.Tensor]) -> None:
    root = Root()
    with pytest.raises(CheckpointError, match=r"no weights for `blocks.0.proj.weight`"):
        evaluate.define(root, (X,), module=root, weights={})
    weights["blocks.0.gain"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match=r"`blocks.0.gain` is float32 \(5,\), expected float32 \(4,\)"):
        evaluate.define(root, (X,), module=root, weights=weights)


def test_a_parameter_of_no_module_is_refused(evaluate: Any) -> None:
    with pytest.raises(NetworkError, match="belongs to no module"):
        evaluate(lambda t: t * Parameter((4,)), X)


def test_names_are_unique(evaluate: Any) -> None:
    network = evaluate.define(lambda t: t + 1.0, (X,))
    with pytest.raises(NetworkError, match="has a tensor `x0` already"):
        network.add_input("x0", "float32", (1,))
    with pytest.raises(NetworkError, match="has a tensor `y0` already"):
        network.mark_output(network.add_input("x1", "float32", (1,)), "y0")


def test_an_unknown_flavour_is_refused() -> None:
    assert load_flavour("auto") is load_flavour("tensorrt_rtx")
    with pytest.raises(EnvironmentLackError, match="unknown TensorRT flavour `tensorflow`"):
        load_flavour("tensorflow")


def test_a_flavour_that_is_not_installed_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("trtllm_port.layers.definition.flavour.importlib.import_module", absent)
    with pytest.raises(EnvironmentLackError, match="No module named 'tensorrt'") as caught:
        load_flavour.__wrapped__("tensorrt")
    assert caught.value.hint == "`pip install tensorrt`"


def test_a_refusal_quotes_nothing_that_was_said_about_an_earlier_network() -> None:
    def network() -> Network:
        return Network(dtype="float32", max_seq_len=8, weights={})

    earlier = network()
    earlier.logger.messages.append(("ERROR", "said about the earlier one"))
    later = network()
    later.logger.messages.append(("ERROR", "said about this one"))
    message = later.refused("x").message
    assert "said about this one" in message
    assert "earlier" not in message
