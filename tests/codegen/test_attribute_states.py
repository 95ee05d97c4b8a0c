"""Models that keep their states in their modules, and what they are made of."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.module_paths import layer_number
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.lower.decomposition import decomposed
from trtllm_port.codegen.record.attribute_states import held_tensors
from trtllm_port.codegen.record.formulas import FORMULAS, PRIMITIVES
from trtllm_port.huggingface.module_outputs import of_tokens

B, L, E = 2, 7, 6


def test_tensors_in_modules_are_states() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = held_tensors(model)
    assert not before
    model[1].state = torch.zeros(2)  # type: ignore[assignment]  # a plain attribute
    assert len(held_tensors(model)) == 1
    assert (layer_number("model.layers.3.block.conv"), layer_number("model.norm")) == (3, None)


def test_the_recurrence_is_hugging_faces() -> None:
    config = transformers.RecurrentGemmaConfig(hidden_size=E, num_attention_heads=2)
    scan = RecurrentGemmaRglru(config)._rnn_scan
    x, gate = torch.randn(B, L, E), torch.rand(B, L, E)
    reset = torch.zeros(B, L, 1, dtype=torch.bool)
    reset[1, 3] = True
    given = {"hidden_states": x, "recurrent_gate": gate, "reset": reset}
    formula = next(formula for present, _, formula in FORMULAS if "reset" in present)
    found = formula(lambda name, *tensors: PRIMITIVES[name](*tensors), given)
    torch.testing.assert_close(found, scan(**given, recurrent_states=None)[0])


def test_a_product_with_a_sum_is_two_operations() -> None:
    bias, left, right = (Value(torch.randn(size)) for size in ((B, 1, 3), (B, L, E), (B, E, 3)))
    out = Value(torch.baddbmm(bias.tensor, left.tensor, right.tensor))
    product, total = decomposed(Operation("baddbmm", (bias, left, right), {}, (out,), None), nn.Module())
    assert (product.name, total.name, total.outputs) == ("bmm", "add", (out,))
    torch.testing.assert_close(product.outputs[0].tensor + bias.tensor, out.tensor)


def test_more_than_the_tokens_is_no_output() -> None:
    x: Tensor = torch.randn(1, 2, 3)
    assert of_tokens(nn.Linear(3, 3), (x,), x) is x


@pytest.mark.slow
def test_a_model_with_states_in_its_modules() -> None:
    config = transformers.RecurrentGemmaConfig(vocab_size=300, hidden_size=64, intermediate_size=128)
    port = generate_port(config)
    text = port.files["model.py"]
    for part in ("linear_recurrence(", "self.conv_1d = CausalConv1d(", "bfloat16(self.config.hidden_size**0.5)"):
        assert part in text
    check = check_port(config, source=port)
    assert check.passed, check
