"""Modelling files, those that come with a model included: which files they are, and functions of ours in them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from torch import nn

CALLED_BY_MODELLING_CODE = ("/transformers/activations.py", "/transformers/utils/deprecation.py")
"""Parts of the paths of files of transformers whose functions run between modelling code and what it calls."""
Function = Callable[..., Any]


def is_modelling_file(file: str) -> bool:
    """Whether a file is one that computes models; those beside them in transformers serve all of them."""
    path = Path(file)
    return path.name.startswith("modeling_") and path.parent.name != "transformers"


@contextmanager
def replaced_functions(
    model: nn.Module,
    function: Callable[[str, Function], Function | None],
    method: Callable[[Function], Function | None],
) -> Iterator[None]:
    """While it lasts, functions of a model's modelling files are others.

    Args:
        model: its modules tell which files and which classes.
        function: name and function of a file → what takes its place, or None.
        method: the same for a method of one of the classes, but for `__init__` and `forward`.
    """
    with ExitStack() as stack:
        for name in sorted({type(module).__module__ for module in model.modules()}):
            source = sys.modules.get(name)
            for attribute, found in list(vars(source).items()) if source else []:
                other = function(attribute, found) if inspect.isfunction(found) else None
                if other is not None:
                    stack.enter_context(mock.patch.object(source, attribute, other))
        for kind in sorted({type(module) for module in model.modules()}, key=lambda kind: kind.__qualname__):
            for attribute, found in list(vars(kind).items()):
                is_method = inspect.isfunction(found) and attribute not in ("__init__", "forward")
                other = method(found) if is_method else None
                if other is not None:
                    stack.enter_context(mock.patch.object(kind, attribute, other))
        yield
