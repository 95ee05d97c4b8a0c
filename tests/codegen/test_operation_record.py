"""The record of traced operations: what computes the same has the same text, what does not differs where it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, MixtralConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRotaryEmbedding

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.operation_text import operation_sections
from trtllm_port.codegen.ir.record import Attribute, Literal, Value
from trtllm_port.codegen.operation_record import WEIGHTS, difference, operation_record, traced_config

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
LLAMA = traced_config(LlamaConfig(**SIZES, num_key_value_heads=2), "LlamaForCausalLM", {})


@pytest.fixture(scope="module")
def llama() -> str:
    return operation_record(LLAMA)


def section(record: str, name: str) -> list[str]:
    """The lines of a section."""
    lines = [*record.splitlines(), ""]
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
    return [line.strip() for line in lines[start + 1 : lines.index("", start)]]


def test_a_line_for_each_operation_of_each_class(llama: str) -> None:
    assert llama == operation_record(LLAMA)
    assert "model.layers.*.mlp:  # LlamaMLP" in llama
    assert section(llama, "model.layers.*.mlp") == [
        "gate_proj = self.gate_proj(x1): Linear(32, 48, bias=False)",
        "act_fn = self.act_fn(gate_proj): Activation(silu)",
        "up_proj = self.up_proj(x1): Linear(32, 48, bias=False)",
        "mul = act_fn * up_proj",
        "down_proj = self.down_proj(mul): Linear(48, 32, bias=False)",
        "return (down_proj)",
    ]
    attention = section(llama, "model.layers.*.self_attn")
    assert "update.0, update.1 = cache.update(x4, this layer, rotary_embedding_2, transpose_3)" in attention


def other_names_and_order(self: Any, hidden: Tensor) -> Tensor:
    raised = self.up_proj(hidden)  # first, and under other names
    opened = self.act_fn(self.gate_proj(hidden))
    product: Tensor = opened * raised
    return self.down_proj(product)  # type: ignore[no-any-return]


def another_constant(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * 1.25)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("forward", "same"), [(other_names_and_order, True), (another_constant, False)])
def test_what_computes_the_same_has_the_same_text(
    llama: str, forward: Callable[..., Tensor], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaMLP, "forward", forward)
    now = operation_record(LLAMA)
    assert (difference(llama, now) == "") is same
    assert section(now, "model.layers.*.self_attn") == section(llama, "model.layers.*.self_attn")
    assert any("1.25" in line for line in section(now, "model.layers.*.mlp")) is not same


def test_a_class_of_another_name_computes_the_same(llama: str) -> None:
    LlamaMLP.__name__ = "LlamaFeedForward"
    try:
        now = operation_record(LLAMA)
    finally:
        LlamaMLP.__name__ = "LlamaMLP"
    assert now != llama
    assert difference(llama, now) == ""


def test_angles_of_another_base_differ(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LlamaRotaryEmbedding.forward

    def forward(self: Any, x: Tensor, position_ids: Tensor) -> Any:
        return original(self, x, 2 * position_ids)

    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", forward)
    assert difference(llama, operation_record(LLAMA)) != ""


def test_a_changed_key_adds_what_follows_from_it(llama: str) -> None:
    config = LlamaConfig(**SIZES, num_key_value_heads=2)
    record = operation_record(traced_config(config, "LlamaForCausalLM", {"mlp_bias": True}))
    assert record.startswith(llama)
    added = record.removeprefix(llama)
    assert "with mlp_bias = true:" in added
    assert "gate_proj = self.gate_proj(x1): Linear(32, 48, bias=True)" in section(added, "model.layers.*.mlp")
    assert "self_attn:" not in added


def test_weights_that_files_have_otherwise_are_on_record() -> None:
    config = MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=3)
    record = operation_record(traced_config(config, "MixtralForCausalLM", {}))
    assert any("experts.*.w1.weight" in line for line in section(record, WEIGHTS.removesuffix(":")))


def test_a_difference_shows_the_sections_that_have_one() -> None:
    before = "a:  # A\n    x = 1\n    y = 2\n\nb:  # B\n    z = 3\n\nwith k = 1:\n\nb:  # B\n    z = 4\n"
    assert difference(before, before.replace("# A", "# Other")) == ""
    assert difference(before, before.replace("y = 2", "y = 5")).splitlines() == [
        "a:",
        "    …",
        "     x = 1",
        "-    y = 2",
        "+    y = 5",
    ]
    assert difference(before, before.replace("z = 4", "z = 6")).splitlines()[0] == "with k = 1: b:"
    assert difference(before, before + "\nc:  # C\n    w = 7\n").splitlines()[0] == "with k = 1: c:"


def block_of(*nodes: Node, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Block:
    return Block("m", nn.Identity(), inputs=inputs, nodes=list(nodes), outputs=outputs)


def test_constants_and_buffers_are_told_by_their_content() -> None:
    x, y, z = (Value(torch.zeros(2)) for _ in range(3))
    scale, buffer = Literal(torch.tensor([1.0, 2.0])), Attribute("m.table", persistent=False)
    nodes = [Node("operator", "*", (x, scale), {}, (y,)), Node("operator", "+", (y, buffer), {}, (z,))]
    block = block_of(*nodes, inputs=(x,), outputs=(z,))
    ((_, lines),) = operation_sections(block, lambda path: torch.arange(20.0)).items()
    assert lines[0] == "mul = x1 * <float32[2] 1, 2>"
    ((_, others),) = operation_sections(block, lambda path: torch.arange(20.0) + 1).items()
    assert lines[0] == others[0]
    assert lines[1] != others[1]
