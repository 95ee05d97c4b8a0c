"""What happens while transformers makes a model: what its modules are made with, what it looks for in its config."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

from torch import nn
from transformers import PreTrainedConfig

from trtllm_port.huggingface.interception.modelling_code import is_modelling_file


@contextmanager
def constructor_arguments() -> Iterator[dict[nn.Module, dict[str, Any]]]:
    """Collect what every module is made with while the context lasts.

    Gives module → the arguments of its class's `__init__` by name, without modules, with the model's config as
    `config`, whatever the class calls it.
    """
    found: dict[nn.Module, dict[str, Any]] = {}
    original = nn.Module.__init__

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and _makes(frame.f_back, self):
            frame = frame.f_back
        if _makes(frame, self):  # the outermost `__init__`: that of the module's own class
            code = frame.f_code
            names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            taken = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
            config = next((name for name, value in taken.items() if isinstance(value, PreTrainedConfig)), "config")
            if "config" not in names and config in taken:
                taken = {"config" if name == config else name: value for name, value in taken.items()}
            found[self] = {name: value for name, value in taken.items() if not isinstance(value, nn.Module)}
        original(self, *args, **kwargs)

    with mock.patch.object(nn.Module, "__init__", init):
        yield found


@contextmanager
def absent_keys() -> Iterator[set[str]]:
    """Collect the attributes that modelling files look for on configs in vain while the context lasts."""
    found: set[str] = set()

    def missing(self: PreTrainedConfig, name: str) -> Any:
        if is_modelling_file(sys._getframe(1).f_code.co_filename) and not name.startswith("_"):
            found.add(name)
        raise AttributeError(f"`{type(self).__name__}` has no attribute `{name}`")

    with mock.patch.object(PreTrainedConfig, "__getattr__", missing, create=True):
        yield found


def _makes(frame: FrameType, module: nn.Module) -> bool:
    return frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is module
