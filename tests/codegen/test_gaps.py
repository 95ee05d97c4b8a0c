"""Lists of layers some of which the model passes over: those that look at images, where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.lower.loop_rolling import with_gaps
from trtllm_port.huggingface.models import load_config


def test_a_round_that_is_passed_over_hands_on_what_it_was_given() -> None:
    values = [Value(torch.zeros(())) for _ in range(3)]
    mask, module = Value(torch.zeros(())), nn.Module()
    rounds = tuple(
        Block("", module, (values[n], mask), ("0", "1"), [Node("call", "layers.*", (), {}, values[n + 1 : n + 2])])  # type: ignore[arg-type]
        for n in range(2)
    )
    for n, one in enumerate(rounds):
        one.outputs = (values[n + 1],)
    loop = Node("loop", "layers", (values[0], mask), {}, (values[2],), roles=("carried", "same"), rounds=rounds)
    made = with_gaps(loop, [0, 2, 4])
    assert [len(one.nodes) for one in made.rounds] == [0, 1, 0, 1, 0]
    assert [one.inputs for one in made.rounds] == [(values[n], mask) for n in (0, 0, 1, 1, 2)]
    assert [one.outputs for one in made.rounds] == [(values[n],) for n in (0, 1, 1, 2, 2)]
    assert made.outputs == (values[2],)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [[3], [1, 4]])
def test_layers_without_images(layers: list[int], tmp_path: Path) -> None:
    parts = {"num_hidden_layers": 6, "cross_attention_layers": layers}
    whole = transformers.MllamaConfig(text_config=parts, architectures=["MllamaForCausalLM"])
    whole.save_pretrained(tmp_path)
    config = load_config(tmp_path)
    port = generate_port(config)
    assert "if layer_idx not in self.config.cross_attention_layers:" in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check
