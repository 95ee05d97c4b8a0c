"""Short convolutions over the text so far, however a model that brings its own code writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.codegen.own_code import write_own_code
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.record import Attribute, Call, Operation, Value
from trtllm_port.codegen.record.convolutions import CausalConvolution, Convolutions
from trtllm_port.huggingface.module_outputs import of_tokens

B, L, E, K = 2, 7, 6, 4
PATH = "layers.0.conv"


def in_a_model(module: nn.Module) -> nn.Module:
    layer = nn.Module()
    layer.conv = module
    model = nn.Module()
    model.layers = nn.ModuleList([layer])
    return model


def found(module: nn.Conv1d, index: object) -> CausalConvolution | None:
    given, out = Value(torch.randn(B, E, L)), Value(module(torch.randn(B, E, L)))
    cut = Operation("__getitem__", (out, index), {}, (Value(out.tensor[..., :L]),), None)
    call = Call(PATH, module, {"x": given}, None, outputs=(out,))
    return Convolutions(Call("", nn.Module(), {}, None, body=[call, cut]), in_a_model(module)).of_call(call)


def asked(module: nn.Conv1d, pad: tuple[int, ...], value: float = 0.0, **options: Any) -> CausalConvolution | None:
    """By torch's function, of tokens that are padded before."""
    given = Value(torch.randn(B, E, L))
    wide = Value(F.pad(given.tensor, pad, value=value))
    weight, bias = (Attribute(f"{PATH}.{name}", persistent=True) for name in ("weight", "bias"))
    out = Value(torch.randn(B, E, wide.tensor.shape[-1] - K + 1))
    padded = Operation("pad", (given, pad), {"value": value}, (wide,), None)
    operation = Operation("conv1d", (wide, weight), {"bias": bias, "groups": E, **options}, (out,), None)
    root = Call("", nn.Module(), {}, None, body=[padded, operation])
    convolutions = Convolutions(root, in_a_model(module))
    assert convolutions.of_operation(operation, PATH) is None  # its own module cannot call itself
    result = convolutions.of_operation(operation, "layers.0")
    assert result is None or (result.given, result.results, result.path) == (given, (out,), PATH)
    return result


def test_padded_on_both_sides_and_cut() -> None:
    module = nn.Conv1d(E, E, K, groups=E, padding=K - 1)
    one = found(module, (Ellipsis, slice(None, L)))
    assert one is not None
    assert (one.leaf.kind, one.leaf.args) == ("CausalConv1d", (E, K))
    x = torch.randn(B, E, L)
    expected = F.conv1d(F.pad(x, (K - 1, 0)), module.weight, module.bias, groups=E)
    torch.testing.assert_close(of_tokens(module, (x,), module(x)), expected)


@pytest.mark.parametrize(
    ("module", "index"),
    [
        (nn.Conv1d(E, E, K, groups=E, padding=K - 1), (Ellipsis, slice(1, L + 1))),  # looks ahead
        (nn.Conv1d(E, E, K, groups=1, padding=K - 1), (Ellipsis, slice(None, L))),  # mixes channels
        (nn.Conv1d(E, E, K, groups=E, padding=K), (Ellipsis, slice(None, L))),
        (nn.Conv1d(E, E, K, groups=E, padding=2 * K - 2, dilation=2), (Ellipsis, slice(None, L))),
        (nn.Conv1d(E, E, K, groups=E, padding=K - 1, padding_mode="replicate"), (Ellipsis, slice(None, L))),
        (nn.Conv1d(E, E, K, groups=E), (Ellipsis, slice(None, L))),  # nothing is padded
    ],
)
def test_other_convolutions(module: nn.Conv1d, index: object) -> None:
    assert found(module, index) is None


def test_padded_before() -> None:
    module = nn.Conv1d(E, E, K, groups=E)
    assert asked(module, (K - 1, 0)) is not None
    assert asked(module, (0, K - 1)) is None
    assert asked(module, (K, 0)) is None
    assert asked(module, (K - 1, 0), value=1.0) is None
    assert asked(module, (K - 1, 0), dilation=2) is None
    assert asked(module, (K - 1, 0), stride=(2,)) is None
    assert asked(module, (K - 1, 0), groups=1) is None
    assert asked(module, (K - 1, 0), bias=None) is None  # the module has one


class Own(nn.Conv1d):
    """As modelling files have it: of tokens [B, L, E], with an activation."""

    def __init__(self, activation: Any, *, ahead: int = 0) -> None:
        super().__init__(E, E, K, groups=E, padding=K - 1)
        self.act, self.ahead = activation, ahead

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._conv_forward(x.transpose(1, 2), self.weight, self.bias)
        return self.act(y[..., self.ahead : x.shape[1] + self.ahead]).transpose(1, 2)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.Identity(), None),
        (F.silu, "silu"),
        (F.gelu, "gelu"),
        (lambda x: F.gelu(x, approximate="tanh"), "gelu_pytorch_tanh"),
    ],
)
def test_a_class_of_the_model_s_own(activation: Any, name: str | None) -> None:
    def call(module: nn.Module) -> CausalConvolution | None:
        x = 3 * torch.randn(B, L, E)
        one = Call(PATH, module, {"x": Value(x)}, None, outputs=(Value(module(x).detach()),))
        return Convolutions(Call("", nn.Module(), {}, None, body=[one]), in_a_model(module)).of_call(one)

    one = call(Own(activation))
    assert one is not None
    assert one.leaf.keywords == {"bias": True, "activation": name, "channels_last": True}
    assert call(Own(activation, ahead=1)) is None
    assert call(Own(F.softplus)) is None


def test_a_layer_has_a_state_for_each() -> None:
    convolutions = Convolutions(Call("", nn.Module(), {}, None), nn.Module())
    assert [convolutions.number(0, path) for path in ("a", "b", "a")] == [0, 1, 0]
    assert convolutions.number(1, "b") == 0


CONFIGURATION = """
from transformers import PretrainedConfig

class BrookConfig(PretrainedConfig):
    model_type = "brook"

    def __init__(self, vocab_size=101, hidden_size=64, num_hidden_layers=2, kernel=4, **kwargs):
        self.vocab_size, self.hidden_size, self.kernel = vocab_size, hidden_size, kernel
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**kwargs)
"""
MODEL = """
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from configuration_brook import BrookConfig

class Short(nn.Conv1d):
    def __init__(self, size, kernel, activation=None):
        super().__init__(size, size, kernel, groups=size, padding=kernel - 1, bias=False)
        self.activation = activation

    def forward(self, x):
        y = self._conv_forward(x.transpose(1, 2), self.weight, self.bias)[..., :x.shape[1]]
        return (y if self.activation is None else F.silu(y)).transpose(1, 2)

class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        size, kernel = config.hidden_size, config.kernel
        self.padded = nn.Conv1d(size, size, kernel, groups=size)
        self.asked = nn.Conv1d(2 * size, 2 * size, kernel + 1, groups=2 * size, bias=False)
        self.both = nn.Conv1d(size, size, kernel, groups=size, padding=kernel - 1)
        self.own, self.named = Short(size, kernel), Short(size, kernel, "silu")
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x):
        length = x.shape[1]
        x = x + self.named(x) + self.own(x)
        x = x + self.padded(F.pad(x.transpose(1, 2), (self.padded.kernel_size[0] - 1, 0))).transpose(1, 2)
        y = F.pad(self.up(x).transpose(1, 2), (self.asked.kernel_size[0] - 1, 0))
        y = F.conv1d(y, self.asked.weight, groups=self.asked.groups).transpose(1, 2)
        x = x + self.down(F.silu(y))
        return x + self.both(x.transpose(1, 2))[:, :, :length].transpose(1, 2)

class BrookForCausalLM(PreTrainedModel):
    config_class = BrookConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return CausalLMOutput(logits=self.head(self.norm(x)))
"""


@pytest.mark.slow
def test_all_of_them_in_one_layer(tmp_path: Path) -> None:
    write_own_code(tmp_path, "brook", CONFIGURATION, MODEL)
    port = generate_port(tmp_path, trust_remote_code=True)
    assert not port.skeletons
    assert port.files["model.py"].count("= CausalConv1d(") == 5
    assert {"kernel", "hidden_size"} <= set(port.ledger.used)
    check = check_port(tmp_path, source=port, trust_remote_code=True)
    assert check.passed, check
