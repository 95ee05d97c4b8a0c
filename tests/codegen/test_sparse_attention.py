"""Layers that choose the slots they attend to, by keys of a second cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.deepseek_v32 import modeling_deepseek_v32

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.discrete_choices import other_choices
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.record.attentions import attention, compute_attention
from trtllm_port.codegen.record.cache_operations import cache_recorder
from trtllm_port.codegen.record.recorder import Recorder, recording
from trtllm_port.huggingface.interception.attention import AttentionCall
from trtllm_port.huggingface.interception.observed_cache import ObservedCache


class _Sparse(nn.Module):
    """Attends to two slots of those that the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()

    def forward(self, x: torch.Tensor, mask: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = attention(AttentionCall(x, x, x, mask, 8**-0.5, {}, chosen=indices))[0]
        return out


def test_attention_is_masked_to_the_slots_that_are_handed_to_it() -> None:
    x = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    indices = torch.tensor([[[0, 3], [1, 0], [2, 0], [1, 3]]], dtype=torch.int32)
    model = _Sparse()
    recorder = Recorder(model)
    with torch.no_grad(), recording(recorder), recorder:
        out = model(x, mask, indices)
    assert recorder.root is not None
    operations = [item for item in recorder.root.body if isinstance(item, Operation)]
    assert [operation.name for operation in operations] == ["only_chosen", "attention"]
    assert operations[1].kwargs["mask"] is operations[0].outputs[0]
    chosen = mask & (torch.nn.functional.one_hot(indices.long(), 4).sum(2) > 0)[:, None]
    torch.testing.assert_close(out, compute_attention(x, x, x, chosen, 8**-0.5))
    assert not torch.equal(chosen, mask)


class _Indexer(nn.Module):
    def forward(self, key: torch.Tensor, cache: Any) -> torch.Tensor:
        keys: torch.Tensor = cache.update_indexer(key, 1)
        return keys


def test_keys_of_the_indexer_are_recorded_with_their_layer() -> None:
    config = hf_config("deepseek_v32", num_hidden_layers=2)
    cache, model = ObservedCache(config, cache_recorder), _Indexer()
    first, second = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    recorder = Recorder(model)
    recorder.model_inputs["cache"] = marker = Value(torch.zeros(()))
    with recording(recorder):
        cache.layers[1].update_indexer(first)
        with recorder:
            keys = model(second, cache)
    torch.testing.assert_close(keys, torch.cat([first, second], 1))
    assert recorder.root is not None
    (update,) = recorder.root.body
    assert isinstance(update, Operation)
    assert (update.name, update.args[:2]) == ("indexer_update", (marker, 1))
    assert update.args[2].tensor is second


def test_choices_are_compared_as_sets_of_what_a_token_sees() -> None:
    theirs = torch.tensor([[[3, 0], [1, 0], [2, 0], [3, 1]]])
    ours = torch.tensor([[[0, 1], [0, 1], [0, 2], [3, 2]]])
    assert other_choices(ours, theirs, 0) == 0.25
    assert other_choices(ours[:, :, :1], theirs, 0) == float("inf")


@pytest.mark.slow
def test_a_model_that_chooses_its_slots() -> None:
    assert hasattr(modeling_deepseek_v32, "DeepseekV32Indexer")
    config = hf_config("deepseek_v32")
    port = generate_port(config)
    assert port.skeletons == ()
    text = port.files["model.py"]
    assert "k = cache.update_indexer(self.layer_idx, k)" in text
    assert "topk(index_scores, min(self.config.index_topk, cache.max_seq_len), dim=-1)" in text
    assert "mask=only_chosen(attention_mask, topk_indices)" in text
    check = check_port(config, source=port)
    assert check.passed, check
