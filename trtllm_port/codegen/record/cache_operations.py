"""What a model does with its cache, as operations of the record.

A modelling file may bring a class of caches of its own, for states that transformers' do not hold. The record has both
what such a class gives and what it takes: `cache_state(cache, layer, "recurrent")` and `state_stored(cache, layer,
state)`, which `recognise/token_loops.py` puts together with what is computed between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.record.recorder import Recorder, active_recorder
from trtllm_port.huggingface.interception.observed_cache import ObservedCache, observed_cache


def recorded_cache(model: nn.Module) -> ObservedCache:
    """An empty cache for a model, of the model's own class if it has one, that reports to a running recorder."""
    return observed_cache(model, cache_recorder)


def cache_recorder() -> CacheRecorder | None:
    """Who observes a cache: the running recorder, if there is one."""
    recorder = active_recorder()
    return None if recorder is None else CacheRecorder(recorder)


class CacheRecorder:
    """A `CacheObserver` that records."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def store_keys(self, layer: int, keys: Tensor, values: Tensor, store: Callable[[], Any]) -> Any:
        return self._update("cache_update", layer, (keys, values), store)

    def store_indexer_keys(self, layer: int, keys: Tensor, store: Callable[[], Any]) -> Any:
        return self._update("indexer_update", layer, (keys,), store)

    def _update(self, name: str, layer: int, tensors: tuple[Tensor, ...], store: Callable[[], Any]) -> Any:
        self.recorder.learn_names()
        reference = (self.recorder.model_inputs["cache"], layer, *self.recorder.reference(tensors))
        with torch._C.DisableTorchFunction():
            out = store()
        self.recorder.record(name, reference, {}, out, self.recorder.location())
        return out

    def stored_tokens(self, layer: int, state: int, states: int, tokens: Tensor) -> None:
        self.recorder.states.counts[layer] = states
        self.recorder.states.convolved[id(tokens)] = tokens, layer, state

    def ask_state(self, layer: int, state: int) -> None:
        self.recorder.states.read = layer, state

    def store_state(self, layer: int, state: int) -> None:
        self.recorder.states.store(layer, state)

    def gave_own_state(self, layer: int, state: Tensor) -> None:
        self.recorder.learn_names()
        arguments = self.recorder.model_inputs["cache"], layer, "recurrent"
        self.recorder.record("cache_state", arguments, {}, state, self.recorder.location())

    def store_own_state(self, layer: int, state: Tensor) -> None:
        arguments = self.recorder.model_inputs["cache"], layer, self.recorder.reference(state)
        with torch._C.DisableTorchFunction():
            marker = torch.zeros(())
        self.recorder.record("state_stored", arguments, {}, marker, self.recorder.location())
