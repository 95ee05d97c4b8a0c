"""The table of old names says what is there, and is in force only where it should be."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.huggingface.compatibility import stand_ins
from trtllm_port.huggingface.compatibility.names import GONE, OLD_NAMES
from trtllm_port.huggingface.compatibility.remote_code import old_names
from trtllm_port.huggingface.loading import make_model
from trtllm_port.huggingface.models import load_config, require_causal_lm


def test_what_takes_the_place_of_a_name_is_there() -> None:
    for old in OLD_NAMES:
        module, _, name = old.now.rpartition(".")
        assert hasattr(importlib.import_module(module) if module else stand_ins, name), old


def test_old_names_are_there_while_remote_code_runs_and_no_longer() -> None:
    from transformers import DynamicCache, utils
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    with old_names(), old_names():  # one within another, as a model within `from_pretrained`
        assert not utils.is_torch_fx_available()
        assert DynamicCache().seen_tokens == 0
        assert "default" in ROPE_INIT_FUNCTIONS
        assert importlib.import_module("transformers.utils.model_parallel_utils").get_device_map
    assert not hasattr(utils, "is_torch_fx_available")
    assert not hasattr(DynamicCache, "seen_tokens")
    assert "default" not in ROPE_INIT_FUNCTIONS
    with pytest.raises(ImportError):
        importlib.import_module("transformers.utils.model_parallel_utils")


def test_a_cache_is_asked_by_its_old_methods() -> None:
    import torch
    from transformers import DynamicCache

    with old_names():
        cache = DynamicCache()
        cache.update(torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
        assert cache.get_usable_length(5) == cache.seen_tokens == 3
        assert cache.get_max_cache_shape() is None
        keys, values = cache.to_legacy_cache()[0]
        assert torch.equal(cache[0][1], values)
        assert torch.equal(cache.key_cache[0], keys)
        assert DynamicCache.from_legacy_cache(cache.to_legacy_cache()).get_seq_length() == 3


def test_code_for_an_older_release_is_imported(odd_model: Callable[..., Path]) -> None:
    imports = """
from transformers.utils import LossKwargs
from transformers.utils.import_utils import is_torch_fx_available
from transformers.pytorch_utils import find_pruneable_heads_and_indices
"""
    config = load_config(odd_model(imports=imports), trust_remote_code=True)
    assert require_causal_lm(config, trust_remote_code=True).__name__ == "OddForCausalLM"
    assert make_model(config).config is config


def test_a_name_that_nothing_takes_the_place_of_is_told_with_its_line(odd_model: Callable[..., Path]) -> None:
    assert "SinkCache" in GONE
    config = load_config(odd_model(imports="from transformers.cache_utils import SinkCache"), trust_remote_code=True)
    with pytest.raises(EnvironmentLackError, match=r"modeling_odd\.py:6.*SinkCache.*last release to have it: 4\."):
        require_causal_lm(config, trust_remote_code=True)


def test_masks_are_asked_for_by_old_arguments(odd_model: Callable[..., Path]) -> None:
    import torch

    forward = """
        states = self.embed(input_ids)
        mask = create_causal_mask(self.config, input_embeds=states, attention_mask=None, cache_position=None,
                                  past_key_values=None)
        return {'logits': self.head(states)}"""
    imports = "from transformers.masking_utils import create_causal_mask"
    config = load_config(odd_model(imports=imports, forward=forward.strip()), trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    assert make_model(config, attention="eager")(torch.zeros(1, 3, dtype=torch.int64)).logits.shape == (1, 3, 31)
