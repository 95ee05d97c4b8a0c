"""Caches that forget nothing, and what models keep of earlier tokens otherwise than in a cache of transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, MambaConfig, MistralConfig
from transformers.models.deepseek_v4 import modeling_deepseek_v4

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.interception.observed_cache import ObservedCache, fill_cache, whole_cache


class WithList(nn.Module):
    def forward(self, input_ids: Tensor, state: list[Tensor] | None = None, use_cache: bool = False) -> Any:
        given: Any = [torch.zeros(2)] if state is None else state
        return SimpleNamespace(state=[given[0] + input_ids])


class WithMistake(nn.Module):
    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        if past_key_values is not None:
            raise TypeError("a mistake of its own")
        return SimpleNamespace(past_key_values=DynamicCache())


def test_a_list_of_tensors_is_refused_by_name() -> None:
    given = {"input_ids": torch.ones(2), "state": object(), "use_cache": True}
    with pytest.raises(UnsupportedModelError, match=r"`WithList` keeps .* as a list \(`state`\)"):
        fill_cache(WithList(), given)
    fill_cache(WithList(), {**given, "state": [torch.ones(2)]})


def test_other_mistakes_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="a mistake of its own"):
        fill_cache(WithMistake(), {"input_ids": torch.ones(2), "past_key_values": object()})


def test_a_cache_that_keeps_what_is_behind_a_window() -> None:
    config = MistralConfig(num_hidden_layers=2, sliding_window=3)
    model = torch.nn.Module()
    model.config = config  # type: ignore[assignment]  # of a model, which is a module
    model.forward = lambda past_key_values: None  # type: ignore[method-assign]
    cache = whole_cache(model)
    assert cache is not None
    keys = torch.zeros(1, 2, 5, 4)
    for _ in range(2):
        found, _ = cache.update(keys, keys, 0)
    assert found.shape[2] == 10
    config.sliding_window = None
    assert whole_cache(model) is None


def test_layers_of_a_cache_that_keep_more_than_a_window_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"DeepseekV4.*`store_compression_weights`"):
        ObservedCache(modeling_deepseek_v4.DeepseekV4Config())


class Steps:
    """Notes what happens to a cache."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def store_keys(self, layer: int, keys: Tensor, values: Tensor, store: Any) -> Any:
        self.seen.append(("keys", layer, keys, values))
        return store()

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.seen.append((name, *given))


def test_who_observes_is_told_what_is_stored_and_gets_what_the_cache_holds() -> None:
    watching: list[Any] = []
    config = MistralConfig(num_hidden_layers=2, sliding_window=None)
    cache = ObservedCache(config, lambda: watching[-1] if watching else None)
    first, second = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 1, 4)
    cache.update(first, first, 1)
    watching.append(observer := Steps())
    keys, values = cache.update(second, 2 * second, 1)
    assert torch.equal(keys, torch.cat([first, second], 2))
    assert torch.equal(values, torch.cat([first, 2 * second], 2))
    ((name, layer, stored, _),) = observer.seen
    assert (name, layer) == ("keys", 1)
    assert stored is second


def test_a_convolution_gets_the_new_tokens_alone_while_somebody_observes() -> None:
    config = MambaConfig(num_hidden_layers=2, hidden_size=16)
    watching: list[Any] = []
    cache = ObservedCache(config, lambda: watching[-1] if watching else None)
    tokens = torch.ones(1, 32, 5)
    cache.update_conv_state(tokens, 0)
    assert cache.update_conv_state(tokens, 0).shape[-1] > 5
    watching.append(observer := Steps())
    assert cache.update_conv_state(tokens, 0) is tokens
    cache.update_recurrent_state(torch.zeros(1, 32, 16), 0)
    told = [(name, *rest[:2]) for name, *rest in observer.seen]
    assert told == [("stored_tokens", 0, 0), ("store_state", 0, 0)]


def test_a_state_that_a_modelling_file_takes_is_told() -> None:
    """By the method that later releases have for it, or from the layer, as modelling files of 5.20 and before do."""
    watching: list[Any] = []
    cache = ObservedCache(MambaConfig(num_hidden_layers=2, hidden_size=16), lambda: watching[-1] if watching else None)
    for layer in (0, 1):
        cache.update_conv_state(torch.ones(1, 32, 5), layer)
        cache.update_recurrent_state(torch.ones(1, 32, 16), layer)
    watching.append(observer := Steps())
    source = "state = cache.layers[1].recurrent_states[0]"
    given: dict[str, Any] = {"cache": cache}
    exec(compile(source, "models/any/modeling_any.py", "exec"), given)
    assert torch.equal(given["state"], torch.ones(1, 32, 16))
    assert observer.seen == [("ask_state", 1, 0)]
    assert cache.layers[1].recurrent_states[0] is given["state"]  # a look that is not the model's
    if hasattr(DynamicCache, "get_recurrent_state"):
        assert cache.get_recurrent_state(0) is not None
        observer.seen.remove(("ask_state", 0, 0))
    assert observer.seen == [("ask_state", 1, 0)]
