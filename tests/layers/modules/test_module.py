"""The module tree: names, duplicates, misuse. torch.nn is the model for all of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtllm_port.errors import NetworkError
from trtllm_port.layers import DecoderLayerList, Linear, Module, ModuleDict, ModuleList, Parameter, share_weights


class Layer(Module):
    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.a, self.b = Linear(2, 2), Linear(2, 2, bias=False)
        self.b.weight = self.a.weight


class TorchLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("duplicates", [False, True])
def test_names_are_torchs(duplicates: bool) -> None:
    ours, theirs = DecoderLayerList(Layer, None, 3), torch.nn.ModuleList([TorchLayer() for _ in range(3)])
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    found = [name for name, _ in ours.named_parameters(remove_duplicate=not duplicates)]
    assert found == [name for name, _ in theirs.named_parameters(remove_duplicate=not duplicates)]


def test_decoder_layers_know_their_index() -> None:
    layers = DecoderLayerList(Layer, SimpleNamespace(num_hidden_layers=2))
    assert [layer.layer_idx for layer in layers] == [0, 1]
    assert len(layers) == 2
    assert layers[-1] is list(layers)[1]
    assert len(ModuleList()) == 0


def test_blocks_share_weights_in_turn() -> None:
    layers = DecoderLayerList(Layer, None, 4)
    first, _, third, fourth = layers
    for layer in (first, third, fourth):
        layer.block = ModuleList([Linear(2, 2)])
    share_weights(layers, "block", 2)
    assert third.block[0].weight is not first.block[0].weight
    assert fourth.block[0].weight is first.block[0].weight
    assert fourth.block[0].bias is first.block[0].bias
    names = [name for name, _ in layers.named_parameters() if "block" in name]
    assert names == [f"{layer}.block.0.{name}" for layer in (0, 2) for name in ("weight", "bias")]


def test_attributes_before_init_are_refused() -> None:
    class Early(Module):
        def __init__(self) -> None:
            self.weight = Parameter((1,))

    with pytest.raises(NetworkError, match=r"`Early.weight` is set before `super\(\).__init__\(\)`"):
        Early()


def test_a_call_without_a_tensor_is_refused() -> None:
    with pytest.raises(NetworkError, match="`Linear` is called without a tensor"):
        Linear(2, 2)(torch.zeros(2))


def test_a_replaced_attribute_leaves_no_trace() -> None:
    layer = Layer(None, 0)
    layer.a = Linear(2, 2, bias=False)
    layer.b = None
    assert [name for name, _ in layer.named_parameters()] == ["a.weight"]


def test_module_dict_has_its_modules_by_name() -> None:
    first, second = Linear(4, 4), Linear(4, 2)
    both = ModuleDict({"first": first, "second": second})
    assert both["second"] is second
    assert dict(both.items()) == {"first": first, "second": second}
    assert [name for name, _ in both.named_modules("parts")] == ["parts", "parts.first", "parts.second"]
