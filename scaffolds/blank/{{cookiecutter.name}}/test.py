"""The {{ cookiecutter.name }} port defines a network. Whether it computes the right thing, `trtllm-port diff-layers` tells."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from trtllm_port.registry import find_port

WORKSPACE = Path(__file__).resolve().parents[1]
# TODO: a tiny config of your model
TINY_CONFIG = {
    "architecture": "{{ cookiecutter.architecture }}",
    "dtype": "float32",
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


def test_port_defines_a_network() -> None:
    port_class = find_port(WORKSPACE, "{{ cookiecutter.architecture }}").cls
    known = {item.name for item in fields(port_class.config_class)}
    port = port_class(port_class.config_class(**{key: TINY_CONFIG[key] for key in TINY_CONFIG if key in known}))
    port.load({name: torch.randn(parameter.shape) for name, parameter in port.named_parameters()})
    network = port.define(max_seq_len=16)
    outputs = [network.definition.get_output(index).name for index in range(network.definition.num_outputs)]
    assert outputs[0] == "logits"
