"""Hypotheses about attention: rotation, mask, operands, heads. B batch, N heads, K key heads, L tokens, H head size"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.verification.experiments.experiment import Experiment, attribute
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.experiments.operations import units

SIDES = {"queries": (0,), "keys": (1,), "queries and keys": (0, 1)}


def _functions(e: Experiment, *words: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions that the module's code calls, by words in their names."""
    for name, value in list(e.namespace.items()):
        if callable(value) and not inspect.isclass(value) and all(word in name for word in words):
            yield name, value


Rotation = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _rotated(e: Experiment, sides: tuple[int, ...], change: Rotation) -> Tensor:
    """Run with every rotation of queries (0) or keys (1) changed.

    A rotation is a function of the module's code that takes both tensors, or each in turn.
    """

    rotating: list[Callable[..., Any]] = []

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = itertools.count()

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if rotating:  # one rotation is made of another, which is not a second one
                return function(*args, **kwargs)
            rotating.append(function)
            try:
                outputs, changed = function(*args, **kwargs), change(function, args, kwargs)
            finally:
                rotating.clear()
            if isinstance(outputs, tuple) and len(outputs) == 2:
                return tuple(changed[side] if side in sides else outputs[side] for side in (0, 1))
            return changed if next(calls) % 2 in sides else outputs

        return wrapped

    with ExitStack() as stack:
        found = False
        for name, function in _functions(e, "rotary", "apply"):
            found = True
            stack.enter_context(attribute(e.namespace, name, wrap(function)))
        if not found:
            raise ValueError("the module rotates nothing by a function")
        return e.run()


def _count(function: Callable[..., Any]) -> int:
    """How many tensors a rotation takes: queries and keys, or one of them."""
    names = list(inspect.signature(function).parameters)
    return 2 if len(names) > 1 and names[1] in ("k", "key", "xk", "key_states") else 1


def unrotated(function: Callable[..., Any], args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    """No rotation."""
    return args[:2] if _count(function) == 2 else args[0]


def to_halves(x: Tensor) -> Tensor:
    """Features 0 2 4 … 1 3 5 …."""
    return torch.cat((x[..., ::2], x[..., 1::2]), dim=-1)


def to_pairs(x: Tensor) -> Tensor:
    """The inverse of `to_halves`."""
    return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)


def _reordered(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    before: Callable[[Tensor], Tensor],
    after: Callable[[Tensor], Tensor],
) -> Any:
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    part = bound["cos"].shape[-1] if isinstance(bound.get("cos"), Tensor) else args[0].shape[-1]
    count = _count(function)
    outputs = function(*(_in_part(x, part, before) for x in args[:count]), *args[count:], **kwargs)
    is_pair = isinstance(outputs, tuple)
    return tuple(_in_part(x, part, after) for x in outputs) if is_pair else _in_part(outputs, part, after)


def _in_part(x: Tensor, part: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the rotated part of a head; a table of cosines may be half as long as it."""
    if x.shape[-1] in (part, 2 * part):
        return change(x)
    return torch.cat((change(x[..., :part]), x[..., part:]), dim=-1)


other_layout = partial(_reordered, before=to_halves, after=to_pairs)  # pairs where Hugging Face takes halves
same_layout = partial(_reordered, before=to_pairs, after=to_halves)  # halves where Hugging Face takes pairs


def _tables(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Rotation:
    """Other tables of cosines and sines."""

    def rotation(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = inspect.signature(function).bind(*args, **kwargs)
        cos, sin = bound.arguments["cos"], bound.arguments["sin"]
        bound.arguments["cos"], bound.arguments["sin"] = change(cos, sin)
        return function(*bound.args, **bound.kwargs)

    return rotation


def rotations(*changes: Rotation) -> Callable[[Experiment], Iterator[Variant]]:
    """A change of the rotation of queries, of keys, or of both."""

    def variants(e: Experiment) -> Iterator[Variant]:
        for change in changes:
            for words, sides in SIDES.items():
                yield Variant(
                    detail=f"for {words}",
                    compute=partial(_rotated, e, sides, change),
                )

    return variants


def only(word: str, change: Rotation) -> Callable[[Experiment], Iterator[Variant]]:
    """A change of the rotation on one side."""

    def variants(e: Experiment) -> Iterator[Variant]:
        yield Variant(detail=f"without rotating the {word}", compute=lambda: _rotated(e, SIDES[word], change))

    return variants


def _attending(e: Experiment, change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Run with other queries, keys and values for the attention function."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            return function(module, *change(query, key, value), *args, **kwargs)

        return wrapped

    with ExitStack() as stack:
        functions = list(_functions(e, "attention_forward"))
        if not functions:
            raise ValueError("the module attends by no function")
        for name, function in functions:
            stack.enter_context(attribute(e.namespace, name, wrap(function)))
        return e.run()


def operands(e: Experiment) -> Iterator[Variant]:
    """Queries, keys and values mixed up."""
    for detail, change in (
        ("with keys for values", lambda q, k, v: (q, k, k)),
        ("with values for keys", lambda q, k, v: (q, v, v)),
        ("with keys and values swapped", lambda q, k, v: (q, v, k)),
        ("with queries and keys swapped", lambda q, k, v: (k, q, v)),
        ("with queries for keys", lambda q, k, v: (q, q, v)),
    ):
        yield Variant(detail=detail, compute=partial(_attending, e, change))


def key_heads(e: Experiment) -> Iterator[Variant]:
    """The heads of keys and values repeated as a whole row, not one by one."""

    def tiled(which: tuple[int, ...]) -> Tensor:
        def change(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            groups = q.shape[1] // k.shape[1]
            if groups == 1:
                raise ValueError("every query head has its own key head")
            keys, values = (
                x.repeat(1, groups, 1, 1) if i in which else x.repeat_interleave(groups, 1) for i, x in ((1, k), (2, v))
            )
            return q, keys, values

        with ExitStack() as stack:
            for name, _ in _functions(e, "repeat_kv"):
                stack.enter_context(attribute(e.namespace, name, lambda x, n: x))
            return _attending(e, change)

    for detail, which in (("of keys and values", (1, 2)), ("of keys", (1,)), ("of values", (2,))):
        yield Variant(detail=f"with the heads {detail} tiled", compute=partial(tiled, which))


@contextmanager
def _output(unit: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what a part of the module returns."""
    forward = unit.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(forward(*args, **kwargs))

    with attribute(unit, "forward", changed):
        yield


def _projections(e: Experiment) -> Iterator[tuple[str, nn.Module, int]]:
    names = {module: name for name, module in e.module.named_modules()}
    for unit in units(e.module):
        known = e._known.get(unit)
        if known is not None and isinstance(known[1], Tensor) and known[1].ndim == 3:
            yield names[unit], unit, known[1].shape[-1]


def _head_size(e: Experiment) -> int | None:
    for name in ("head_dim", "head_size"):
        size = getattr(e.module, name, None) or getattr(e.config, name, None)
        if isinstance(size, int):
            return size
    heads: int | None = getattr(e.config, "num_attention_heads", None)
    return None if not heads else int(e.config.hidden_size) // heads


def _split(x: Tensor, *sizes: int) -> Tensor:
    """Cut the last dimension into several."""
    return x.reshape(*x.shape[:-1], *sizes)


def heads(e: Experiment) -> Iterator[Variant]:
    """Features cut into heads in the wrong order."""
    size = _head_size(e)
    for name, unit, features in _projections(e):
        if not size or features % size or features == size:
            continue

        def change(x: Tensor, size: int = size) -> Tensor:
            return _split(x, size, -1).transpose(-1, -2).flatten(-2)

        yield Variant(
            detail=f"with the features of `{name}` cut as [{size}, heads] instead of [heads, {size}]",
            compute=partial(e.run, patch=partial(_output, unit, change)),
        )
    for place, name in enumerate(("queries", "keys", "values")):

        def cut(*qkv: Tensor, place: int = place) -> tuple[Tensor, Tensor, Tensor]:
            x = qkv[place].transpose(1, 2)
            other = _split(x.flatten(-2), x.shape[-1], x.shape[-2]).transpose(-1, -2).transpose(1, 2)
            return tuple(other if i == place else each for i, each in enumerate(qkv))  # type: ignore[return-value]

        yield Variant(
            detail=f"with the features of the {name} cut as [size, heads] instead of [heads, size]",
            compute=partial(_attending, e, cut),
        )


def fused_orders(e: Experiment) -> Iterator[Variant]:
    """Parts of a fused projection in another order."""
    size = _head_size(e)
    for name, unit, features in _projections(e):
        if features % 3 or not size or features % (3 * size):
            continue
        for blocks, words in ((1, "as a whole"), (features // (3 * size), "in every head")):
            for order in list(itertools.permutations(range(3)))[1:]:

                def change(x: Tensor, blocks: int = blocks, order: tuple[int, ...] = order) -> Tensor:
                    return _split(x, blocks, 3, -1)[..., list(order), :].flatten(-3)

                yield Variant(
                    detail=f"with the parts of `{name}` in the order {order}, {words}",
                    compute=partial(e.run, patch=partial(_output, unit, change)),
                )


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(
        id="rope.keys",
        cause="keys are not rotated (rotary embedding)",
        look=(r"key.*rotary_embedding\(", r"rotary_embedding\("),
        variants=only("keys", unrotated),
    ),
    Hypothesis(
        id="rope.queries",
        cause="queries are not rotated (rotary embedding)",
        look=(r"query.*rotary_embedding\(", r"rotary_embedding\("),
        variants=only("queries", unrotated),
    ),
    Hypothesis(
        id="rope.left_out",
        cause="nothing is rotated (rotary embedding)",
        look=(r"rotary_embedding\(",),
        variants=only("queries and keys", unrotated),
    ),
    Hypothesis(
        id="rope.layout",
        cause="rotary embedding in pairs instead of halves, or the reverse",
        look=(r"interleaved", r"rotary_embedding\("),
        variants=rotations(other_layout, same_layout),
    ),
    Hypothesis(
        id="rope.direction",
        cause="rotary embedding in the other direction",
        look=(r"rotary_embedding\(",),
        variants=rotations(_tables(lambda cos, sin: (cos, -sin))),
    ),
    Hypothesis(
        id="rope.sine_cosine",
        cause="cosines and sines swapped",
        look=(r"rotary_embedding\(",),
        variants=rotations(_tables(lambda cos, sin: (sin, cos))),
    ),
    Hypothesis(
        id="attention.kv_order",
        cause="heads of keys repeated in the wrong order",
        look=(r"expand\(|repeat", r"attention\("),
        variants=key_heads,
    ),
    Hypothesis(
        id="qkv.order",
        cause="parts of the fused projection in the wrong order",
        look=(r"split\(|chunk\(",),
        variants=fused_orders,
    ),
    Hypothesis(
        id="attention.operands",
        cause="queries, keys and values mixed up",
        look=(r"attention\(", r"@"),
        variants=operands,
    ),
    Hypothesis(
        id="attention.heads", cause="features cut into heads in the wrong order", look=(r"\.view\(",), variants=heads
    ),
)
