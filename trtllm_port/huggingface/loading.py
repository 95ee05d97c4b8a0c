"""Models of transformers with the weights that their files hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from torch import nn

_IN_PLACE = re.compile(r"__i(add|sub|mul|truediv|floordiv|mod|pow)__|\w*[^_]_")


@contextmanager
def weights_as_stored() -> Iterator[None]:
    """While it lasts, `from_pretrained` changes nothing that it has read from a file.

    transformers (5.23) initialises modules after loading, and trusts `_init_weights` to leave alone what was loaded.
    Those that change a weight in place do not: Mamba's divides `out_proj` where the config has
    `rescale_prenorm_residual`.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel._initialize_weights

    def initialize(self: PreTrainedModel, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        with _ReadOnly():
            original(self, module, *args, **kwargs)

    with mock.patch.object(PreTrainedModel, "_initialize_weights", initialize):
        yield


class _ReadOnly(TorchFunctionMode):
    """While active, operations in place leave tensors as they are that transformers has read from a file."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        in_place = _IN_PLACE.fullmatch(getattr(func, "__name__", "")) is not None
        if in_place and args and getattr(args[0], "_is_hf_initialized", False):
            return args[0]
        return func(*args, **(kwargs or {}))
