"""Attention on both sides of linear recurrences: TensorRT-RTX compiles all of it as single operations only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trtllm_port.layers import (
    DecoderModelForCausalLM,
    KVCache,
    Network,
    PretrainedConfig,
    Tensor,
    attention,
    causal_mask,
    constant,
    gather_tokens,
    linear_recurrence,
)
from trtllm_port.runtime.engines.builder import compile_engine
from trtllm_port.runtime.engines.directory import BuildConfig
from trtllm_port.runtime.network import NetworkFile

HEADS, SIZE, SLOTS = 4, 16, 32


class Hybrid(DecoderModelForCausalLM):
    """Layers of attention, "a", and recurrences, "r", without parameters."""

    def __init__(self, kinds: str) -> None:
        super().__init__(PretrainedConfig(architecture="Hybrid", dtype="float16", vocab_size=8))
        self.kinds = kinds

    def forward(self, input_ids: Tensor, position_ids: Tensor, cache: KVCache, logits_indices: Tensor) -> Tensor:
        torch.manual_seed(0)
        x = self._mixed(input_ids.unsqueeze(2).to("float16").expand(-1, -1, HEADS * SIZE))
        for index, kind in enumerate(self.kinds):
            if kind == "r":
                x = x + self._mixed(linear_recurrence(self._mixed(x), x.sigmoid(), cache.state(index, "sum")))
                continue
            query, key, value = (self._mixed(x).view(0, 0, HEADS, SIZE).transpose(1, 2) for _ in range(3))
            key, value = cache.update(index, key, value)
            x = x + self._mixed(attention(query, key, value, mask=causal_mask(position_ids, cache)).flatten(2))
        return gather_tokens(x, logits_indices)

    def _mixed(self, x: Tensor) -> Tensor:
        return x @ constant(torch.randn(1, HEADS * SIZE, HEADS * SIZE).half() * 0.1, like=x)


def has_attention_layers(network: Network) -> bool:
    definition = network.definition
    kinds = (str(definition.get_layer(index).type) for index in range(definition.num_layers))
    return any("ATTENTION" in kind for kind in kinds)


@pytest.mark.parametrize(("kinds", "expected"), [("aa", True), ("rraa", True), ("rrar", True), ("rara", False)])
def test_attention_on_both_sides_of_a_loop_is_single_operations(kinds: str, expected: bool) -> None:
    assert has_attention_layers(Hybrid(kinds).define(max_seq_len=SLOTS)) is expected


@pytest.mark.slow
def test_it_compiles(tmp_path: Path) -> None:
    network = Hybrid("rara").define(max_seq_len=SLOTS)
    build = BuildConfig(
        backend="tensorrt_rtx",
        library_version=network.trt.__version__,
        max_batch_size=2,
        max_input_len=16,
        max_seq_len=SLOTS,
        compute_capabilities=("8.9",),
    )
    found = compile_engine(network, NetworkFile.from_network(network), tmp_path / "rank0.engine", build=build)
    assert found.engine_bytes > 0
