from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from trtllm_port.verification.taps.soft_caps import ScorePeak


@pytest.mark.parametrize("cap", [2.0, 50.0])
def test_the_peak_is_the_largest_score_over_the_cap(cap: float) -> None:
    query, key, value = torch.randn(3, 1, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    module: Any = SimpleNamespace(num_key_value_groups=1, training=False)
    with ScorePeak() as scores:
        eager_attention_forward(module, query, key, value, None, scaling=0.5, softcap=cap)
    seen = (0.5 * query @ key.transpose(-1, -2)).tril()
    assert scores.peak == pytest.approx(float(seen.abs().max()) / cap, rel=1e-5)


def test_without_a_cap_there_is_no_peak() -> None:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attn_implementation="eager",
    )
    with torch.no_grad(), ScorePeak() as scores:
        LlamaForCausalLM(config).eval()(input_ids=torch.arange(12)[None])
    assert scores.peak is None
