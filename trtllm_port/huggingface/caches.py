"""How transformers' models take and give back what they remember, and which position ids go with it."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.foundation.words import words
from trtllm_port.huggingface.compatibility.remote_code import is_remote

NAMES = ("past_key_values", "cache_params", "state", "cache")
"""What the argument is called. From transformers 5.24 on it is the last, but for models that bring their own code."""
KV_CACHES = ("past_key_values", "cache")
"""Those of models that hold keys and values, and not states alone."""


_OF_CACHES = words("DynamicCache get_seq_length get_usable_length from_legacy_cache create_causal_mask")


def keeps_cache(model: Any) -> bool:
    """Whether a model's `forward` takes what it remembers of earlier tokens; others compute all tokens anew."""
    return _cache_argument(model) is not None


def cache_argument(model: Any) -> str:
    """The argument of a model's `forward`, and the field of its output, that holds KV caches or states."""
    return _cache_argument(model) or NAMES[0]


def cache_of(model: Any, output: Any) -> Any:
    """What the output of a model's `forward` holds of the tokens so far; None where it holds nothing."""
    return getattr(output, cache_argument(model), None)


def first_cache(model: Any) -> dict[str, Any]:
    """The arguments that hold what a model remembers before the first token, as transformers' `generate` gives them.

    A class that comes with a model is given a cache, for it might give back a tuple of what that holds, else. Others
    make what they need.
    """
    name = cache_argument(model)
    if not is_remote(type(model)) or not keeps_cache(model) or name not in KV_CACHES or own_class(model) is not None:
        return {}
    return {name: empty_cache(model)}


def empty_cache(model: Any) -> Any:
    """The cache that transformers makes for a model."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config(decoder=True))


def own_class(model: nn.Module) -> type[Any] | None:
    """The class of caches that the modelling file of a model defines, or None."""
    from transformers import DynamicCache

    for name in sorted({type(module).__module__ for module in model.modules()}):
        for found in vars(sys.modules[name]).values():
            if inspect.isclass(found) and issubclass(found, DynamicCache) and found.__module__ == name:
                return found
    return None


def _cache_argument(model: Any) -> str | None:
    if is_remote(type(model)) and not _uses_caches(type(model).__module__):
        return None
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in NAMES if name in parameters and not _is_table(parameters[name])), None)


@cache
def _uses_caches(module: str) -> bool:
    """Whether the file of a class that comes with a model keeps what it remembers in a cache of transformers.

    Else that is a tuple of keys and values, mostly: the file knows no class of caches, or stores nothing in one. What
    such a model computes of all tokens at once is the same, and what it remembers is left alone.
    """
    from transformers import Cache

    classes = [held for held in vars(sys.modules[module]).values() if isinstance(held, type)]
    own = [held for held in classes if held.__module__ == module]
    methods = (method for held in own for method in vars(held).values() if inspect.isfunction(method))
    called = {name for method in methods for name in inspect.unwrap(method).__code__.co_names}
    return "update" in called and bool(called & _OF_CACHES) and any(issubclass(held, Cache) for held in classes)


def _is_table(parameter: inspect.Parameter) -> bool:
    """Whether an argument called `cache` is a plain dictionary (XLM), which nothing of ours can fill."""
    return parameter.name == "cache" and "dict" in str(parameter.annotation)


def positions_are_slots(model: Any, ids_BL: Tensor) -> bool:
    """Whether a model takes position ids, and those of the first tokens are 0, 1, 2 and so on.

    Models of RoBERTa's kind begin at another number. Some models (Bamba) do not count the tokens in their cache: after
    the first call they must be told, as transformers' `generate` does.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    positions_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand(ids_BL.shape)
    with torch.no_grad():
        given, alone = (model(input_ids=ids_BL, **more).logits for more in ({"position_ids": positions_BL}, {}))
    return torch.equal(given, alone)


def wants_mask(model: Any, ids_BL: Tensor) -> bool:
    """Whether a model goes on by one token only if it is told that no token is padding, as `generate` tells every one.

    Files that come with a model may take the mask for granted that transformers makes of that.

    Args:
        model: in evaluation mode.
        ids_BL: two tokens.
    """
    asked = is_remote(type(model)) and keeps_cache(model)
    if not asked or "attention_mask" not in inspect.signature(model.forward).parameters:
        return False
    name, first = cache_argument(model), first_cache(model)
    with torch.no_grad():
        kept = getattr(model(input_ids=ids_BL, **first, use_cache=True), name, None) or first.get(name)
        try:
            model(input_ids=ids_BL[:, 1:2], **{name: kept}, use_cache=True)
        except Exception:  # any: it is the model's own code
            return True
    return False


def takes_single_tokens_only(model: Any, first_BL: Tensor, more_BL: Tensor) -> bool:
    """Whether a model goes on from what it remembers by single tokens, and its own code fails for several at once.

    Args:
        model: in evaluation mode.
        first_BL: the tokens before.
        more_BL: several tokens.
    """

    def fails(tokens_BL: Tensor) -> bool:
        try:
            with torch.no_grad():
                fed = Continuation(model, first_BL)
                fed(first_BL)
                fed(tokens_BL)
        except Exception:  # any: it is the model's own code
            return True
        return False

    return not fails(more_BL[:, :1]) and fails(more_BL)


class Continuation:
    """A model that is fed piece by piece, and goes on each time from what it remembers.

    One that keeps no cache computes all tokens anew.

    Args:
        model: in evaluation mode.
        begin_BL: the first tokens that it will be fed.
    """

    def __init__(self, model: Any, begin_BL: Tensor) -> None:
        self.model = model
        self._keeps = keeps_cache(model)
        self._told = positions_are_slots(model, begin_BL[:, :2])
        self._masked = wants_mask(model, begin_BL[:, :2])
        self._memory = first_cache(model)
        self._fed_BL = begin_BL[:, :0]

    def __call__(self, ids_BL: Tensor) -> Tensor:
        """Return the logits [B, L, V] of further tokens."""
        argument, start = cache_argument(self.model), self._fed_BL.shape[1]
        self._fed_BL = torch.cat([self._fed_BL, ids_BL], 1)
        if not self._keeps:
            logits_BLV: Tensor = self.model(input_ids=self._fed_BL, use_cache=True).logits
            return logits_BLV[:, start:]
        more: dict[str, Any] = dict(self._memory)
        if start and self._told:
            more["position_ids"] = torch.arange(start, self._fed_BL.shape[1], device=ids_BL.device).expand(ids_BL.shape)
        if start and self._masked:
            more["attention_mask"] = torch.ones_like(self._fed_BL)
        output = self.model(input_ids=ids_BL, **more, use_cache=True)
        if not start and not hasattr(output, argument):  # it gives back only the cache that it was given
            self._memory = {argument: empty_cache(self.model)}
            output = self.model(input_ids=ids_BL, **self._memory, use_cache=True)
        self._memory = {argument: getattr(output, argument, self._memory.get(argument))}
        logits_BLV = output.logits
        return logits_BLV
