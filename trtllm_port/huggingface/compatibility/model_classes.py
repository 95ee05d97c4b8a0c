"""Model classes that were written for older releases: what transformers asks of a class since."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from trtllm_port.huggingface.compatibility.calls import with_usual_names

InForce = Callable[[], AbstractContextManager[None]]
PREPARED = "_prepared_for_old_names"


def prepare_model_class(kind: type[Any], in_force: InForce) -> None:
    """Have a model class of a model's own be made and run with what older releases had in force. In place.

    Args:
        kind: the class that is loaded; those of its parts run within its methods.
        in_force: the context in which `__init__` and `forward` are to run.
    """
    if PREPARED in vars(kind):
        return
    setattr(kind, PREPARED, True)
    kind.__init__ = _finished(kind.__init__, in_force)
    kind.forward = _within(with_usual_names(kind.forward), in_force)
    kind.get_expanded_tied_weights_keys = _with_list(kind.get_expanded_tied_weights_keys)


def _within(method: Callable[..., Any], in_force: InForce) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with in_force():
            return method(*args, **kwargs)

    return run


def _finished(init: Callable[..., None], in_force: InForce) -> Callable[..., None]:
    """A constructor that does what transformers counts on, where the class does not."""

    @functools.wraps(init)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        with in_force():
            init(self, *args, **kwargs)
            if not hasattr(self, "all_tied_weights_keys"):
                self.post_init()
            _declare_shared(self)

    return make


def _declare_shared(model: Any) -> None:
    """Tell transformers of parameters that are one tensor under two names, where the class does not."""
    first: dict[int, str] = {}
    shared = {
        name: own
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if (own := first.setdefault(id(parameter), name)) != name
    }
    undeclared = {name: own for name, own in shared.items() if not {name, own} & model.all_tied_weights_keys.keys()}
    if undeclared:
        model._tied_weights_keys = {**(model._tied_weights_keys or {}), **undeclared}
        model.all_tied_weights_keys.update(undeclared)


def _with_list(expanded: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """The tied weights of a class that lists them, without the one that each is tied to: that of the embedding."""

    @functools.wraps(expanded)
    def found(self: Any, all_submodels: bool = False) -> dict[str, str]:
        if isinstance(self._tied_weights_keys, list | tuple | set):
            self._tied_weights_keys = _tied_to_embedding(self, list(self._tied_weights_keys))
        return expanded(self, all_submodels=all_submodels)

    return found


def _tied_to_embedding(model: Any, names: list[str]) -> dict[str, str] | None:
    embedding = model.get_input_embeddings()
    path = next((path for path, module in model.named_modules() if module is embedding), None)
    if path is None or not isinstance(embedding, nn.Module):
        return None
    head = model.get_output_embeddings()
    of_head = {f"{path}.weight" for path, module in model.named_modules() if module is head}
    return {name: f"{path}.weight" for name in names if name in of_head} or None
