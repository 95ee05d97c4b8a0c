"""Whole networks of few heads and of odd head sizes, compiled with an engine's caches and both its profiles."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from trtllm_port.runtime.engines.builder import compile_engine
from trtllm_port.runtime.engines.directory import BuildConfig
from trtllm_port.runtime.network import NetworkFile

BUILD = BuildConfig(
    backend="tensorrt_rtx",
    library_version="any",
    compute_capabilities=("8.9",),
    max_batch_size=2,
    max_input_len=8,
    max_seq_len=16,
)


@pytest.mark.parametrize(
    ("query_heads", "key_value_heads", "head_size", "fused"),
    [(1, 1, 64, False), (2, 1, 16, False), (3, 3, 128, False), (2, 2, 20, False), (4, 1, 100, True), (5, 5, 12, True)],
)
def test_few_heads_and_odd_sizes_compile(
    query_heads: int, key_value_heads: int, head_size: int, fused: bool, llama: ModuleType, tmp_path: Path
) -> None:
    config = llama.LlamaConfig(
        architecture="LlamaForCausalLM",
        vocab_size=16,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=query_heads,
        num_key_value_heads=key_value_heads,
        head_dim=head_size,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        dtype="float16",
    )
    model = llama.LlamaForCausalLM(config)
    model.load({name: torch.zeros(p.shape, dtype=torch.float16) for name, p in model.named_parameters()})
    network = model.define(max_seq_len=BUILD.max_seq_len)
    engine = compile_engine(network, NetworkFile.from_network(network), tmp_path / "rank0.engine", build=BUILD)
    assert [report.fused for report in engine.attention] == [{"8.9": fused}]
