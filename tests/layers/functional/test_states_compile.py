"""TensorRT compiles what keeps a state, in half precision, for both profiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trtllm_port.layers import (
    CausalConv1d,
    KVCache,
    Module,
    Network,
    Tensor,
    TokenShift,
    constant,
    gather_tokens,
    linear_attention,
    linear_recurrence,
    selective_scan,
    weighted_average,
)
from trtllm_port.runtime.engines.builder import compile_engine
from trtllm_port.runtime.engines.directory import BuildConfig
from trtllm_port.runtime.network import NetworkFile

HEADS, SIZE = 4, 16


class Mixer(Module):
    """Every kind of state in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = CausalConv1d(HEADS * SIZE, 4)
        self.shift = TokenShift()

    def forward(self, x_BLE: Tensor, cache: KVCache) -> Tensor:
        x_BEL = self.conv(x_BLE.transpose(1, 2), cache.state(0, "conv"))
        decays = constant(-torch.rand(HEADS * SIZE, 8), like=x_BEL)
        parts = x_BEL[:, :8], x_BEL[:, 8:16]
        x_BEL = selective_scan(x_BEL, x_BEL.sigmoid(), decays, *parts, cache.state(0, "scan"))
        heads = x_BEL.transpose(1, 2).view(0, 0, HEADS, SIZE)
        gate = heads.sum(3).sigmoid()
        heads = heads + linear_recurrence(x_BLE, x_BLE.sigmoid(), cache.state(0, "sum")).view(0, 0, HEADS, SIZE)
        x_BLE = self.shift(x_BLE, cache.state(0, "shift"))
        x_BLE = weighted_average(x_BLE, x_BLE, decays[:, 0], decays[:, 1], cache.state(0, "average"))
        heads = heads + x_BLE.view(0, 0, HEADS, SIZE)
        return linear_attention(heads, heads, heads, cache.state(0, "linear"), log_decay=-gate, beta=gate).flatten(2)


@pytest.mark.slow
def test_a_network_with_states_compiles(tmp_path: Path) -> None:
    mixer = Mixer()
    weights = {name: torch.randn(p.shape, dtype=torch.float16) for name, p in mixer.named_parameters()}
    network = Network(dtype="float16", max_seq_len=32, weights=weights)
    network.bind(mixer)
    ids, positions, indices = (
        network.add_input(name, "int64", (-1, -1), ("batch_size", axis))
        for name, axis in (("input_ids", "length"), ("position_ids", "length"), ("logits_indices", "logits_length"))
    )
    cache = KVCache(network, positions, 32)
    x_BLE = (ids.unsqueeze(2).to("float16") * constant(torch.randn(1, 1, HEADS * SIZE).half(), like=ids)).sin()
    network.mark_output(gather_tokens(mixer(x_BLE, cache), indices), "logits")
    cache.mark_outputs()
    build = BuildConfig(
        backend="tensorrt_rtx",
        library_version=network.trt.__version__,
        max_batch_size=2,
        max_input_len=16,
        max_seq_len=32,
        compute_capabilities=("8.9",),
    )

    found = compile_engine(network, NetworkFile.from_network(network), tmp_path / "rank0.engine", build=build)

    assert found.engine_bytes > 0
