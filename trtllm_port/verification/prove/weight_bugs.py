"""Bugs in the converted weights, as a wrong `convert.py` makes them. They are put into one layer, the second."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.verification.prove.bugs import Bug, SoundPort, Weights, weight_bug

LAYER = re.compile(r"\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a parameter is in, or None."""
    found = LAYER.search(name)
    return None if found is None else int(found[1])


def pick(port: SoundPort, *fits: Callable[[str, Tensor], bool], layer: int = 1) -> str | None:
    """Return the first parameter of a layer that fits, in the order of execution."""
    names = [name for name in port.weights if layer_of(name) == layer]
    names = [name for name in names if name.rpartition(".")[0] in port.order]
    names.sort(key=lambda name: port.order.index(name.rpartition(".")[0]))
    return next((name for name in names if all(fit(name, port.weights[name]) for fit in fits)), None)


def vector(name: str, value: Tensor) -> bool:
    return value.ndim == 1


def matrix(name: str, value: Tensor) -> bool:
    return value.ndim == 2


def square(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and value.shape[0] == value.shape[1]


def ends(*words: str) -> Callable[[str, Tensor], bool]:
    return lambda name, value: name.endswith(words)


def bias(name: str, value: Tensor) -> bool:
    return value.ndim == 1 and name.endswith("bias")


def gain(name: str, value: Tensor) -> bool:
    return value.ndim == 1 and name.endswith("weight")


def with_matrix(port: SoundPort, *, is_matrix: bool) -> Callable[[str, Tensor], bool]:
    """Whether a bias stands beside a matrix (a projection's) or beside a gain (a norm's)."""

    def fits(name: str, value: Tensor) -> bool:
        weight = port.weights.get(name.removesuffix("bias") + "weight")
        return weight is not None and (weight.ndim == 2) == is_matrix

    return fits


def changed(
    change: Callable[[Tensor], Tensor], *fits: Callable[[str, Tensor], bool]
) -> Callable[[SoundPort], Weights | None]:
    """One parameter, changed."""

    def bug(port: SoundPort) -> Weights | None:
        name = pick(port, *fits)
        return None if name is None else {name: change(port.weights[name]).contiguous()}

    return bug


def norm_bias_dropped(port: SoundPort) -> Weights | None:
    name = pick(port, bias, with_matrix(port, is_matrix=False))
    return None if name is None else {name: torch.zeros_like(port.weights[name])}


def projection_bias_dropped(port: SoundPort) -> Weights | None:
    name = pick(port, bias, with_matrix(port, is_matrix=True))
    return None if name is None else {name: torch.zeros_like(port.weights[name])}


def late_bias_dropped(port: SoundPort) -> Weights | None:
    """The bias of the MLP's last projection."""
    names = [n for n in port.weights if layer_of(n) == 1 and bias(n, port.weights[n])]
    names = [n for n in names if with_matrix(port, is_matrix=True)(n, port.weights[n]) and "mlp" in n]
    return {names[-1]: torch.zeros_like(port.weights[names[-1]])} if names else None


def of_neighbour(port: SoundPort) -> Weights | None:
    """A projection of the layer before."""
    name = pick(port, matrix)
    if name is None:
        return None
    other = port.weights.get(LAYER.sub(".0.", name, count=1))
    return None if other is None else {name: other.clone()}


def swapped(*fits: Callable[[str, Tensor], bool]) -> Callable[[SoundPort], Weights | None]:
    """Two parameters of a layer that have the same shape and role."""

    def bug(port: SoundPort) -> Weights | None:
        first = pick(port, *fits)
        if first is None:
            return None
        shape = port.weights[first].shape
        end = first.rpartition(".")[2]
        second = pick(port, *fits, ends(end), lambda name, value: name != first and value.shape == shape)
        if second is None:
            return None
        return {first: port.weights[second].clone(), second: port.weights[first].clone()}

    return bug


def heads_reversed(weight: Tensor) -> Tensor:
    return weight.reshape(4, -1, *weight.shape[1:]).flip(0).reshape(weight.shape)


def interleaved(weight: Tensor) -> Tensor:
    """Rows for rotation in pairs, as other checkpoints keep them: row 2i of a head for i, 2i + 1 for i + half."""
    heads = weight.reshape(4, 2, -1, *weight.shape[1:])
    return heads.transpose(1, 2).reshape(weight.shape)


def embedding_for_head(port: SoundPort) -> Weights | None:
    """The head is tied although the config says that it is not."""
    head = port.weights.get("lm_head.weight")
    if head is None:
        return None
    tied = next((v for n, v in port.weights.items() if n != "lm_head.weight" and v.shape == head.shape), None)
    return None if tied is None else {"lm_head.weight": tied.clone()}


def row_shifted(port: SoundPort) -> Weights | None:
    """Embeddings shifted by one token, as by an added token."""
    name = next((n for n, v in port.weights.items() if layer_of(n) is None and v.ndim == 2), None)
    return None if name is None else {name: port.weights[name].roll(1, 0).contiguous()}


BUGS: tuple[Bug, ...] = (
    weight_bug(
        "weights.gain_dropped",
        "a norm's gain is all ones (zeros where one is added)",
        "norm.gain_left_out",
        changed(lambda w: torch.zeros_like(w) if abs(float(w.float().mean())) < 0.5 else torch.ones_like(w), gain),
    ),
    weight_bug("weights.norm_bias_dropped", "a norm's bias is zero", "bias.left_out", norm_bias_dropped),
    weight_bug("weights.bias_dropped", "a projection's bias is zero", "bias.left_out", projection_bias_dropped),
    weight_bug(
        "weights.bias_dropped.mlp", "the bias of the MLP's last projection is zero", "bias.left_out", late_bias_dropped
    ),
    weight_bug(
        "weights.transposed", "a square matrix is transposed", "weight.transposed", changed(lambda w: w.T, square)
    ),
    weight_bug(
        "weights.neighbour", "a projection has the weights of the layer before", "weight.neighbour", of_neighbour
    ),
    weight_bug(
        "weights.gate_up",
        "weights of gate and up swapped",
        "weight.swapped",
        swapped(ends("gate_proj.weight", "up_proj.weight")),
    ),
    weight_bug(
        "weights.key_value",
        "weights of keys and values swapped",
        "weight.swapped",
        swapped(ends("k_proj.weight", "v_proj.weight")),
    ),
    weight_bug("weights.norms", "gains of two norms swapped", "weight.swapped", swapped(gain)),
    weight_bug(
        "weights.heads", "heads of a projection in reverse order", "weight.permuted", changed(heads_reversed, matrix)
    ),
    weight_bug(
        "weights.interleaved",
        "queries permuted for the other rotary layout",
        "weight.permuted",
        changed(interleaved, matrix, ends("q_proj.weight", "query_key_value.weight")),
    ),
    weight_bug("weights.head_tied", "the head has the embedding's weights", "weight.tied", embedding_for_head),
    weight_bug("weights.row_shifted", "embeddings shifted by one token", "weight.permuted", row_shifted),
    weight_bug(
        "weights.scaled",
        "a matrix twice as large, as by a dequantisation scale",
        "weight.scale multiplier",
        changed(lambda w: 2 * w, matrix, ends("_proj.weight", "fc2.weight", "dense.weight")),
    ),
)
