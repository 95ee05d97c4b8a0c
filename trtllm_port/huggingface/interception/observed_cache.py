"""Caches of transformers that forget nothing, and tell an observer what a model stores in them and asks of them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import KV_CACHES, cache_argument, keeps_cache, own_class
from trtllm_port.huggingface.interception.modelling_code import is_modelling_file
from trtllm_port.huggingface.models import BLANK

LAYER = "layer_idx"
STATES = "recurrent_states"
"""Of a cache's layer: number → state. Until transformers 5.20, modelling files take a state from there themselves."""


class CacheObserver(Protocol):
    """Is told what happens to a cache, with the number of the layer that it happens to."""

    def store_keys(self, layer: int, keys: Tensor, values: Tensor, store: Callable[[], Any]) -> Any:
        """New keys and values; `store` puts them into the cache, and gives all that it holds."""

    def store_indexer_keys(self, layer: int, keys: Tensor, store: Callable[[], Any]) -> Any:
        """The same of the keys by which a layer chooses slots."""

    def stored_tokens(self, layer: int, state: int, states: int, tokens: Tensor) -> None:
        """New tokens for a convolution were stored in one of so many states."""

    def ask_state(self, layer: int, state: int) -> None:
        """A recurrent state is asked for, by its number."""

    def store_state(self, layer: int, state: int) -> None:
        """A recurrent state is stored."""

    def gave_own_state(self, layer: int, state: Tensor) -> None:
        """A state that a class of caches beside transformers' holds was asked for."""

    def store_own_state(self, layer: int, state: Tensor) -> None:
        """Such a state is stored."""


Observer = Callable[[], CacheObserver | None]
"""Who observes now; None: nobody."""


class ObservedCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped
    """A growing KV cache, with the states of a config's layers.

    Layers of a sliding window keep all keys and values here: slots are positions in a port.
    """

    def __init__(self, config: Any, observer: Observer = lambda: None) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [_unlimited(layer) for layer in self.layers]
        self.observer = observer
        for number, layer in enumerate(self.layers):
            if hasattr(layer, STATES):
                setattr(layer, STATES, _States(getattr(layer, STATES), partial(self._ask, number)))

    def _ask(self, layer_idx: int, state_idx: int) -> None:
        if (observer := self.observer()) is not None:
            observer.ask_state(layer_idx, state_idx)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        store = partial(super().update, key_states, value_states, layer_idx, *args, **kwargs)
        observer = self.observer()
        return store() if observer is None else observer.store_keys(layer_idx, key_states, value_states, store)

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Any:
        store = partial(super().update_indexer, indexer_key_states, layer_idx)
        observer = self.observer()
        return store() if observer is None else observer.store_indexer_keys(layer_idx, indexer_key_states, store)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Any:
        self._ask(layer_idx, state_idx)
        return super().get_recurrent_state(layer_idx, state_idx)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Any:
        """Where somebody observes, the new tokens alone: to take those before from the state is the convolution's."""
        with torch._C.DisableTorchFunction():
            out = super().update_conv_state(conv_states, layer_idx, state_idx, **kwargs)
        observer = self.observer()
        if observer is None:
            return out
        observer.stored_tokens(layer_idx, state_idx, self.layers[layer_idx].number_of_states, conv_states)
        return conv_states

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Any:
        if (observer := self.observer()) is not None:
            observer.store_state(layer_idx, state_idx)
        with torch._C.DisableTorchFunction():
            return super().update_recurrent_state(recurrent_states, layer_idx, state_idx)


class _States(dict[int, Any]):
    """The recurrent states of a layer, which say when a modelling file takes one of them."""

    def __init__(self, states: dict[int, Any], ask: Callable[[int], None]) -> None:
        super().__init__(states)
        self.ask = ask

    def __getitem__(self, number: int) -> Any:
        if is_modelling_file(sys._getframe(1).f_code.co_filename):
            self.ask(number)
        return super().__getitem__(number)


def observed_cache(model: nn.Module, observer: Observer) -> ObservedCache:
    """An empty cache for a model, of the model's own class if it has one."""
    own = own_class(model)
    if own is None:
        config: Any = model.config
        return ObservedCache(config.get_text_config(decoder=True), observer)
    made: ObservedCache = _observed(own)(observer)
    return made


def whole_cache(model: nn.Module) -> ObservedCache | None:
    """A cache that forgets nothing, for a model whose own one forgets what is behind a window; else None.

    What a window hides the masks say. Where they hide nothing (a window that the cache alone has), what such a model
    computes would depend on how a text is cut into calls.
    """
    if not keeps_cache(model) or cache_argument(model) not in KV_CACHES:
        return None
    config: Any = model.config
    layers = DynamicCache(config=config.get_text_config(decoder=True)).layers
    forgets = any(_unlimited(layer) is not layer for layer in layers)
    return ObservedCache(config.get_text_config(decoder=True)) if forgets else None


def fill_cache(model: nn.Module, given: dict[str, Any]) -> None:
    """Call a model with its cache on the first tokens.

    Args:
        given: the arguments of `forward`, the cache among them.

    Raises:
        UnsupportedModelError: what the model remembers is no cache of transformers.
        Exception: whatever else Hugging Face's code raises.
    """
    name = cache_argument(model)
    try:
        model(**given)
    except (AttributeError, TypeError):
        kept = getattr(model(**{key: value for key, value in given.items() if key != name}), name, None)
        if kept is None or isinstance(kept, Cache):
            raise
        raise UnsupportedModelError(
            f"`{type(model).__name__}` keeps what it remembers as a {type(kept).__name__} (`{name}`), and not in a "
            "cache of transformers that tells which layer keeps what",
            hint=BLANK,
        ) from None


def _unlimited(layer: Any) -> Any:
    if isinstance(layer, LinearAttentionAndSlidingWindowAttentionLayer):
        return LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
    if not isinstance(layer, DynamicSlidingWindowLayer):
        return layer
    own = [
        name for name in dir(type(layer)) if not name.startswith("_") and not hasattr(DynamicSlidingWindowLayer, name)
    ]
    if own:
        raise UnsupportedModelError(
            f"`{type(layer).__name__}` keeps more in the cache than the keys and values of a window: "
            f"{', '.join(f'`{name}`' for name in own)}",
            hint=BLANK,
        )
    return DynamicLayer()


def _observed(own: type[Any]) -> type[Any]:
    """A subclass of a class of caches, whose methods give what a layer remembers and take what it is to remember.

    Which is which follows from their parameters.
    """

    def init(self: Any, observer: Observer) -> None:
        self.observer = observer
        own.__init__(self)  # not `ObservedCache`'s: such a class asks for no config

    methods: dict[str, Any] = {"__init__": init}
    for name, method in vars(own).items():
        parameters = list(inspect.signature(method).parameters) if inspect.isfunction(method) else []
        if parameters[1:2] == [LAYER] and len(parameters) == 2:
            methods[name] = _reading(method)
        elif parameters[1:2] == [LAYER] and len(parameters) == 3:
            methods[name] = _storing(method)
    return type(f"Observed{own.__name__}", (ObservedCache, own), methods)


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def read(self: Any, layer_idx: int) -> Any:
        observer = self.observer()
        with torch._C.DisableTorchFunction():
            state = method(self, layer_idx)
        if observer is not None and isinstance(state, Tensor):
            observer.gave_own_state(layer_idx, state)
        return state

    return read


def _storing(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def store(self: Any, layer_idx: int, state: Tensor) -> Any:
        if (observer := self.observer()) is not None:
            observer.store_own_state(layer_idx, state)
        with torch._C.DisableTorchFunction():
            return method(self, layer_idx, state)

    return store
