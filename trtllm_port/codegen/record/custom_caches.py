"""Caches that a modelling file brings along: a class of its own, for states that transformers' do not hold.

Such a class has methods that give what a layer remembers and that take what it is to remember; which is which follows
from their parameters. The record holds both: `cache_state(cache, layer, "recurrent")` and `state_stored(cache, layer,
state)`, which `recognise/token_loops.py` puts together with what is computed between them.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from trtllm_port.codegen.record.hooks import RecordedCache
from trtllm_port.codegen.record.recorder import active_recorder
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import cache_argument
from trtllm_port.huggingface.models import BLANK

LAYER = "layer_idx"


def recorded_cache(model: nn.Module) -> RecordedCache:
    """An empty cache for a model, of the model's own class if it has one, that reports to a running recorder."""
    own = own_class(model)
    if own is None:
        config: Any = model.config
        return RecordedCache(config.get_text_config(decoder=True))
    made: RecordedCache = _recorded(own)()
    return made


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


def own_class(model: nn.Module) -> type[Any] | None:
    """The class of caches that the modelling file of a model defines, or None."""
    for name in sorted({type(module).__module__ for module in model.modules()}):
        for found in vars(sys.modules[name]).values():
            if inspect.isclass(found) and issubclass(found, DynamicCache) and found.__module__ == name:
                return found
    return None


def _recorded(own: type[Any]) -> type[Any]:
    """A subclass of a class of caches."""
    methods: dict[str, Any] = {"__init__": lambda self: own.__init__(self)}
    for name, method in vars(own).items():
        parameters = list(inspect.signature(method).parameters) if inspect.isfunction(method) else []
        if parameters[1:2] == [LAYER] and len(parameters) == 2:
            methods[name] = _reading(method)
        elif parameters[1:2] == [LAYER] and len(parameters) == 3:
            methods[name] = _storing(method)
    return type(f"Recorded{own.__name__}", (RecordedCache, own), methods)


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def read(self: Any, layer_idx: int) -> Any:
        recorder = active_recorder()
        with torch._C.DisableTorchFunction():
            state = method(self, layer_idx)
        if recorder is not None and isinstance(state, Tensor):
            recorder.learn_names()
            arguments = recorder.model_inputs["cache"], layer_idx, "recurrent"
            recorder.record("cache_state", arguments, {}, state, recorder.location())
        return state

    return read


def _storing(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def store(self: Any, layer_idx: int, state: Tensor) -> Any:
        recorder = active_recorder()
        if recorder is not None:
            arguments = recorder.model_inputs["cache"], layer_idx, recorder.reference(state)
            with torch._C.DisableTorchFunction():
                marker = torch.zeros(())
            recorder.record("state_stored", arguments, {}, marker, recorder.location())
        with torch._C.DisableTorchFunction():
            return method(self, layer_idx, state)

    return store
