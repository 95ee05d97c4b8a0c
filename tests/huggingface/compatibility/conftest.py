"""Models that bring their own code, as small as can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
from transformers import PretrainedConfig
{imports}

class OddConfig(PretrainedConfig):
    model_type = "odd"

    def __init__(self, vocab_size=31, hidden_size=8, rope_theta=10000.0, rope_scaling=None, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.rope_theta, self.rope_scaling = rope_theta, rope_scaling
        super().__init__(**kwargs)
"""
MODEL = """
import torch
from torch import nn
from transformers import PreTrainedModel
from .configuration_odd import OddConfig
{imports}

class OddForCausalLM(PreTrainedModel):
    config_class = OddConfig
    {attributes}

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        {init}

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, {parameters}):
        {forward}
"""
PARTS = {
    "imports": "",
    "attributes": "",
    "init": "self.post_init()",
    "parameters": "input_ids, labels=None",
    "forward": "return {'logits': self.head(self.embed(input_ids))}",
}
Directory = Callable[..., Path]


@pytest.fixture
def odd_model(tmp_path: Path) -> Directory:
    """Write a directory with code of its own; returns where."""

    def write(*, config: dict[str, Any] | None = None, config_imports: str = "", **parts: str) -> Path:
        (tmp_path / "configuration_odd.py").write_text(CONFIG.format(imports=config_imports))
        (tmp_path / "modeling_odd.py").write_text(MODEL.format(**{**PARTS, **parts}))
        names = {"AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
        values = {"architectures": ["OddForCausalLM"], "auto_map": names, "model_type": "odd", **(config or {})}
        (tmp_path / "config.json").write_text(json.dumps(values))
        return tmp_path

    return write
