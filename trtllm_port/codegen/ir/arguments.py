"""What the arguments of a recorded call say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def bind(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, in the order of the signature."""
    signature = inspect.signature(forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {**{f"arg{i}": arg for i, arg in enumerate(args)}, **kwargs}
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        flat.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    order = list(signature.parameters)
    return dict(sorted(flat.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def takes_everything(index: Any) -> bool:
    """Whether an index takes everything, whatever the sizes: `x[:, -0:]`."""
    items = index if isinstance(index, tuple) else (index,)
    return all(one is Ellipsis or (isinstance(one, slice) and one in (slice(None), slice(0, None))) for one in items)


def is_in_place(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether an operation of torch writes into its first argument."""
    if name == "__setitem__" or kwargs.get("out") is not None:
        return True
    return (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name not in ("__invert__",))
