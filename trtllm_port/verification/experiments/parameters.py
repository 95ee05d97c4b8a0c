"""Hypotheses about a module's own parameters: what a wrong `convert.py` or a wrong declaration does to them.

O, I rows and columns of a matrix
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from trtllm_port.verification.experiments.experiment import Experiment, parameter
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant
from trtllm_port.verification.taps.names import parent_of

SAME_DIRECTION = 0.9999  # cosine of two columns that are the same but for rounding


def _own(e: Experiment) -> dict[str, Tensor]:
    return dict(e.module.named_parameters(recurse=False))


def with_value(e: Experiment, name: str, value: Tensor, detail: str) -> Variant:
    """The module with another value of one of its parameters."""
    return Variant(
        look=rf"\b{name}\b", detail=detail, compute=partial(e.run, patch=partial(parameter, e.module, name, value))
    )


def biases(e: Experiment) -> Iterator[Variant]:
    """No bias, or twice the bias."""
    for name, value in _own(e).items():
        if name.endswith("bias"):
            yield with_value(e, name, torch.zeros_like(value), f"without `{name}`")
            yield with_value(e, name, 2 * value, f"with `{name}` added twice")


def transposed(e: Experiment) -> Iterator[Variant]:
    """A square matrix the other way round."""
    for name, value in _own(e).items():
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            yield with_value(e, name, value.T.contiguous(), f"with `{name}` transposed")


def scaled(e: Experiment) -> Iterator[Variant]:
    """A matrix with a factor, as of a dequantisation."""
    matrix, bias = _own(e).get("weight"), _own(e).get("bias", 0.0)
    if matrix is None or matrix.ndim != 2 or e.reference.shape != e.port.shape:
        return
    ours, theirs = (e.port - bias).to(torch.float64), (e.reference - bias).to(torch.float64)
    factor = float(f"{float((ours * theirs).sum() / theirs.square().sum()):.6g}")
    yield with_value(e, "weight", matrix * factor, f"with `weight` times {factor:g}")


def others(e: Experiment, *, near: bool) -> Iterator[tuple[str, nn.Module]]:
    """Modules that have parameters of the same names and shapes: beside this one, or at its place in other layers."""
    shapes = {name: value.shape for name, value in _own(e).items()}
    if not shapes:
        return
    pattern = re.sub(r"\d+", r"\\d+", re.escape(e.path).replace(r"\.", r"\."))
    for path, module in e.model.named_modules():
        if path == e.path or not shapes:
            continue
        beside = parent_of(path) == parent_of(e.path)
        if (beside if near else bool(re.fullmatch(pattern, path))) and (
            {name: value.shape for name, value in module.named_parameters(recurse=False)} == shapes
        ):
            yield path, module


def _all_of(e: Experiment, path: str, other: nn.Module) -> Iterator[Variant]:
    """All parameters of another module, and its first alone."""
    names = list(_own(e))

    def compute(names: list[str]) -> Tensor:
        if len(names) == 1:
            return e.run(patch=partial(parameter, e.module, names[0], getattr(other, names[0]).data))
        with parameter(e.module, names[0], getattr(other, names[0]).data):
            return compute(names[1:])

    yield Variant(detail=f"with the parameters of `{path}`", compute=lambda: compute(names))
    if len(names) > 1:
        yield Variant(detail=f"with `{names[0]}` of `{path}`", compute=lambda: compute(names[:1]))


def swapped(e: Experiment) -> Iterator[Variant]:
    """The parameters of a sibling."""
    for path, other in others(e, near=True):
        yield from _all_of(e, path, other)


def neighbours(e: Experiment) -> Iterator[Variant]:
    """The parameters of another layer."""
    for path, other in others(e, near=False):
        yield from _all_of(e, path, other)


def tied(e: Experiment) -> Iterator[Variant]:
    """The head has the embedding's matrix, or the reverse."""
    embedding = e.model.get_input_embeddings()  # type: ignore[operator]
    head = e.model.get_output_embeddings()  # type: ignore[operator]
    for one, other, word in ((head, embedding, "embedding"), (embedding, head, "head")):
        fits = e.module is one and other is not None and other.weight.shape == one.weight.shape
        if fits and not torch.equal(other.weight, one.weight):
            yield with_value(e, "weight", other.weight.data, f"with the weights of the {word}")


def permuted(e: Experiment) -> Iterator[Variant]:
    """Rows or columns in another order: found by looking for each of the port's features among Hugging Face's."""
    matrix = _own(e).get("weight")
    if matrix is None or matrix.ndim != 2:
        return
    for name, order in (
        ("rolled down by one", torch.arange(matrix.shape[0]).roll(1)),
        ("rolled up by one", torch.arange(matrix.shape[0]).roll(-1)),
    ):
        yield with_value(e, "weight", matrix[order], f"with the rows of `weight` {name}")
    order_F = matching(e)
    if order_F is not None:
        reference = e.reference
        moved = int((order_F != torch.arange(len(order_F))).sum())
        detail = f"with its output features in another order ({moved} of {len(order_F)} moved{_shape(order_F)})"
        yield Variant(detail=detail, compute=lambda: reference[..., order_F])
    for pieces in _divisors(e, matrix.shape[0]):
        blocks = matrix.reshape(pieces, -1, *matrix.shape[1:])
        yield with_value(e, "weight", blocks.flip(0).reshape(matrix.shape), f"with {pieces} blocks of rows reversed")
        pairs = matrix.reshape(pieces, 2, -1, *matrix.shape[1:])
        yield with_value(
            e, "weight", pairs.transpose(1, 2).reshape(matrix.shape), "with the rows of each head in pairs, not halves"
        )


def _divisors(e: Experiment, rows: int) -> Iterator[int]:
    """Numbers of heads that the rows may be made of."""
    counts = {getattr(e.config, name, None) for name in ("num_attention_heads", "num_key_value_heads")}
    for count in sorted(count for count in counts if isinstance(count, int) and count > 1):
        if rows % (2 * count) == 0:
            yield count


def matching(e: Experiment) -> Tensor | None:
    """Return for each of the port's features which of Hugging Face's it is, or None if they are no permutation."""
    if e.reference.shape != e.port.shape or e.reference.shape[-1] > 4096:
        return None
    ours = e.port.reshape(-1, e.port.shape[-1]).to(torch.float64)
    theirs = e.reference.reshape(-1, e.port.shape[-1]).to(torch.float64)
    cosine_FF = (ours / ours.norm(dim=0)).T @ (theirs / theirs.norm(dim=0))
    best = cosine_FF.max(1)
    is_clear = bool((best.values > SAME_DIRECTION).all())
    return best.indices if is_clear and len(best.indices.unique()) == len(best.indices) else None


def _shape(order_F: Tensor) -> str:
    step = int(order_F[1] - order_F[0]) if len(order_F) > 1 else 1
    return f", the second is number {int(order_F[1])}" if step != 1 else ""


TABLE: tuple[Hypothesis, ...] = (
    Hypothesis(id="bias.left_out", cause="bias dropped or added twice", look=(r"bias",), variants=biases),
    Hypothesis(id="weight.transposed", cause="matrix transposed", look=(), variants=transposed),
    Hypothesis(id="weight.scale", cause="matrix has a wrong factor", look=(), variants=scaled, general=True),
    Hypothesis(id="weight.swapped", cause="weights swapped with a sibling's", look=(), variants=swapped),
    Hypothesis(id="weight.tied", cause="head and embedding wrongly tied", look=(r"tie",), variants=tied),
    Hypothesis(id="weight.neighbour", cause="weights of another layer", look=(), variants=neighbours),
    Hypothesis(id="weight.permuted", cause="rows of the matrix in another order", look=(), variants=permuted),
)
