"""Products of tensors of two precisions, which torch refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trtllm_port.foundation.words import words
from trtllm_port.huggingface.compatibility.remote_code import is_remote

PRODUCTS = words("matmul __matmul__ bmm mm")


def mixed_products(model: nn.Module) -> AbstractContextManager[Any]:
    """`MixedProducts` for a model that brings its own code."""
    return MixedProducts() if is_remote(type(model)) else nullcontext()


class MixedProducts(TorchFunctionMode):
    """While it lasts, products are computed in the narrower of their two precisions, as under `torch.autocast`.

    Files that come with a model and that were only ever run in float32, or under autocast, multiply attention weights,
    which they cast to float32, with values that they left as they are. In float32, where alone such a model can be
    compared without autocast, the two are the same.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in PRODUCTS and len(args) == 2 and all(isinstance(x, Tensor) for x in args):
            dtypes = {x.dtype for x in args if x.is_floating_point()}
            narrow = min(dtypes, key=lambda dtype: dtype.itemsize, default=None)
            # `type` tells the cast from those that the file has in the same line, mostly called `to`.
            args = [x.type(narrow) if x.dtype in dtypes - {narrow} else x for x in args]
        return func(*args, **(kwargs or {}))
