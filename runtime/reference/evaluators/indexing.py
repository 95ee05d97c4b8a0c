"""GATHER, SCATTER, ONE_HOT, NON_ZERO: elements chosen by indices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer


def gather(layer: Layer) -> Evaluator:
    """Modes DEFAULT (whole slices along `axis`), ELEMENT (one element each) and ND (index tuples in the last axis).

    They are ONNX's Gather, GatherElements and GatherND: a negative index counts from the end.
    """
    axis, batch = layer["axis"], layer["num_elementwise_dims"]
    mode = layer["mode"]
    if mode == "DEFAULT" and batch == 0:
        if axis == 0 and layer.rank(0) == 2:
            return lambda data, indices: F.embedding(_from_start(indices, data.shape[0]), data)
        return lambda data, indices: _take(data, indices, axis)
    if mode == "DEFAULT" and batch == 1:
        return lambda data, indices: torch.stack(
            [_take(row, picks, axis - 1) for row, picks in zip(data, indices, strict=True)]
        )
    if mode == "ELEMENT":
        return lambda data, indices: torch.gather(data, axis, _from_start(indices, data.shape[axis]).long())
    if mode == "ND":
        return lambda data, indices: _gather_nd(data, indices, batch)
    layer.refuse(f"mode {mode} and {batch} elementwise dimensions")


def _from_start(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices)


def _take(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    picked = data.index_select(axis, _from_start(indices, data.shape[axis]).reshape(-1))
    return picked.reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])


def _gather_nd(data: Tensor, indices: Tensor, batch: int) -> Tensor:
    """`output[b, i, ...] = data[b, *indices[b, i], ...]`."""
    depth = indices.shape[-1]
    places = data.shape[batch : batch + depth]
    rows = data.shape[:batch].numel()
    flat = data.reshape(rows, places.numel(), data.shape[batch + depth :].numel())
    linear = _linear(indices, places).reshape(rows, -1)
    picked = flat[torch.arange(rows, device=data.device)[:, None], linear]
    return picked.reshape(indices.shape[:-1] + data.shape[batch + depth :])


def _linear(indices: Tensor, places: torch.Size) -> Tensor:
    """Index tuples in the last axis as row-major offsets into `places`."""
    linear = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for i, size in enumerate(places):
        index = _from_start(indices[..., i].long(), size)
        if not bool(((index >= 0) & (index < size)).all()):
            raise IndexError(f"an index tuple leaves {list(places)}")
        linear = linear * size + index
    return linear


def scatter(layer: Layer) -> Evaluator:
    """The data with the updates at the indices: ELEMENT (one element each along `axis`) or ND (index tuples).

    A negative index counts from the end. What is left where several updates meet is not defined.
    """
    axis = layer["axis"]
    if layer["mode"] == "ELEMENT":
        return lambda data, indices, updates: data.scatter(axis, _from_start(indices, data.shape[axis]).long(), updates)
    layer.choose("mode", {"ND": None})
    return _scatter_nd


def _scatter_nd(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`output[indices[i]] = updates[i]`, the last axis of `indices` being a tuple."""
    depth = indices.shape[-1]
    places = data.shape[:depth]
    flat = data.reshape(places.numel(), data.shape[depth:].numel()).clone()
    flat[_linear(indices, places).reshape(-1)] = updates.reshape(-1, flat.shape[1])
    return flat.reshape(data.shape)


def one_hot(layer: Layer) -> Evaluator:
    """`values[1]` where the new axis equals the index, `values[0]` elsewhere; the axis has `depth` elements."""
    axis = layer["axis"]

    def evaluate(indices: Tensor, values: Tensor, depth: Tensor) -> Tensor:
        places = axis % (indices.dim() + 1)
        classes = torch.arange(int(depth), device=indices.device)
        classes = classes.reshape([-1 if i == places else 1 for i in range(indices.dim() + 1)])
        return torch.where(indices.unsqueeze(places) == classes, values[1], values[0])

    return evaluate


def non_zero(layer: Layer) -> Evaluator:
    """The indices of elements that are not zero, in row-major order: [rank, count]."""
    dtype = layer.dtype(layer["indices_type"])
    return lambda x: torch.nonzero(x).t().to(dtype).contiguous()


def reverse_sequence(layer: Layer) -> Evaluator:
    """Each slice along `batch_axis` with its first `lengths[i]` elements along `sequence_axis` reversed."""
    batch, sequence = layer["batch_axis"], layer["sequence_axis"]

    def evaluate(x: Tensor, lengths: Tensor) -> Tensor:
        place = torch.arange(x.shape[sequence], device=x.device)
        ends = lengths.long().reshape(-1, 1)
        source = torch.where(place < ends, ends - 1 - place, place)  # [batch, sequence]
        moved = x.movedim((batch, sequence), (0, 1))
        rows = torch.arange(x.shape[batch], device=x.device).reshape(-1, 1)
        return moved[rows, source].movedim((0, 1), (batch, sequence))

    return evaluate
