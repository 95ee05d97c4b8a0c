"""Models of which Hugging Face's own code goes on from a filled cache by single tokens only."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import RecurrentGemmaConfig
from transformers.models.recurrent_gemma import modeling_recurrent_gemma

from trtllm_port.codegen import check_port, generate_port, operation_record
from trtllm_port.codegen.check import _first_caches
from trtllm_port.codegen.configs.mixing import mixed
from trtllm_port.codegen.configs.sizes import Sample, make_samples
from trtllm_port.codegen.generate import FIRST_STEP
from trtllm_port.codegen.operation_record import traced_config
from trtllm_port.codegen.record.tracing import goes_on_by_single_tokens, trace
from trtllm_port.huggingface.interception.observed_cache import ObservedCache
from trtllm_port.huggingface.loading import make_model

SIZES = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
IDS = torch.arange(40).reshape(2, 20)
MASK = "create_sliding_window_causal_mask"


def small() -> Any:
    config = RecurrentGemmaConfig(**SIZES, num_hidden_layers=3, attention_window_size=8, lru_width=16)
    config.architectures = ["RecurrentGemmaForCausalLM"]
    return config


def refuse(*_: Any) -> None:
    """As a file that does not run in float64 as it is."""
    raise RuntimeError


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has masks leave the cached tokens out, as those of transformers 5.20 do for this model."""
    original = getattr(modeling_recurrent_gemma, MASK)

    def mask(**asked: Any) -> Any:
        forgotten = {name: None for name in ("past_key_values", "cache") if name in asked}  # its names in two releases
        return original(**{**asked, **forgotten})

    return lambda: monkeypatch.setattr(modeling_recurrent_gemma, MASK, mask)


def test_the_first_step_says_what_a_further_one_does(forget: Callable[[], None]) -> None:
    traced = traced_config(small(), "RecurrentGemmaForCausalLM", {})
    further = operation_record(traced)
    forget()
    assert operation_record(traced) == further


def test_it_is_traced_where_hugging_face_fails_alone(forget: Callable[[], None]) -> None:
    sample = Sample(small(), 2, 7, 5)
    forget()
    with pytest.raises(RuntimeError, match="size of tensor"):
        trace(sample)
    assert goes_on_by_single_tokens(sample)
    assert not goes_on_by_single_tokens(Sample(small(), 2, 7, 0))
    broken = small()
    broken.hidden_activation = "none of them"
    assert not goes_on_by_single_tokens(Sample(broken, 2, 7, 5))


def test_all_configurations_are_traced_alike() -> None:
    samples = make_samples(small()).at_first_step()
    base, other = mixed(samples, {}, random.Random(0)) or (None, None)
    assert {sample.past for sample in samples.traced} == {0}
    assert (base and base.past, other and other.past) == (0, 0)


def test_a_window_is_the_cache_s_where_masks_do_not_count_it(forget: Callable[[], None]) -> None:
    model = make_model(small(), dtype=torch.float32, attention="eager").eval()
    in_float64 = copy.deepcopy(model)
    in_float64.register_forward_pre_hook(refuse)
    if not goes_on_by_single_tokens(Sample(small(), 2, 7, 5)):  # in transformers 5.20 masks do so by themselves
        caches = _first_caches(model, in_float64, IDS)
        assert all(isinstance(cache, ObservedCache) for cache in caches)
    forget()
    caches = _first_caches(model, in_float64, IDS)
    assert not any(cache is None or isinstance(cache, ObservedCache) for cache in caches)


@pytest.mark.slow
def test_such_a_port_is_right_for_several_tokens_and_says_so(forget: Callable[[], None]) -> None:
    config = RecurrentGemmaConfig(vocab_size=300, hidden_size=64, intermediate_size=128)
    usual = generate_port(config)
    forget()
    port = generate_port(config)
    assert port.files["model.py"] == usual.files["model.py"]
    assert (usual.remarks, port.remarks) == ((), (FIRST_STEP,))
    check = check_port(config, source=port)
    assert check.passed, check
