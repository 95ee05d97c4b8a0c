"""How a model that comes with its own code is called, and what it gives: as transformers' own models do.

B batch, L tokens, V vocabulary
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

IDS = "input_ids"


def with_usual_names(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A `forward` that takes `input_ids`, passes over options that it does not know, and gives `logits` first.

    Args:
        forward: of a class; its first parameter may be called otherwise, and it may give logits alone, a tuple, a
            dictionary, or something else before them.
    """
    signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())
    first = parameters[1].name if len(parameters) > 1 and IDS not in signature.parameters else IDS
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    @functools.wraps(forward)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = {name: value for name, value in kwargs.items() if takes_all or name in (IDS, *signature.parameters)}
        if first != IDS and IDS in known:
            known[first] = known.pop(IDS)
        return _logits_first(forward(self, *args, **known))

    if first != IDS:
        renamed = [p.replace(name=IDS) if p.name == first else p for p in parameters]
        run.__signature__ = signature.replace(parameters=renamed)  # type: ignore[attr-defined]  # `inspect` asks for it
    return run


def _logits_first(given: Any) -> Any:
    """What a model gives, as an output of transformers' whose first tensor is the logits; unchanged if it has none."""
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.utils import ModelOutput

    if isinstance(given, dict):
        parts = {name: value for name, value in given.items() if value is not None}
        logits = parts.get("logits")
        is_first = next((value for value in parts.values() if isinstance(value, Tensor)), None) is logits
        if logits is None or (isinstance(given, ModelOutput) and is_first):
            return given
        return CausalLMOutputWithPast(logits=logits, past_key_values=parts.get("past_key_values"))
    parts_of = (given,) if isinstance(given, Tensor) else given if isinstance(given, tuple | list) else ()
    found = next((part for part in parts_of if isinstance(part, Tensor) and part.ndim == 3), None)  # [B, L, V]
    return given if found is None else CausalLMOutputWithPast(logits=found)
