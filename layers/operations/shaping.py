"""Functions that change a tensor's shape or the order of its dimensions, and those that join and repeat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import axis, network_of, static


def shape(x: Tensor, dim: int | None = None) -> Tensor:
    """The sizes of x as a 1-D int64 tensor, or one of them as an int64 tensor of shape [1]."""
    network = x.network
    if dim is not None and x.shape[axis(x, dim)] >= 0:
        return network.integers((x.shape[axis(x, dim)],))
    sizes = network.shared(("shape", x.name), lambda: network.add("shape", network.definition.add_shape(x.itensor)))
    if dim is None:
        return sizes
    position = axis(x, dim)
    return network.shared(
        ("size", x.name, position),
        lambda: network.add("size", network.definition.add_slice(sizes.itensor, (position,), (1,), (1,))),
    )


def sizes_tensor(x: Tensor, sizes: Sequence[int | Tensor]) -> Tensor:
    """Sizes, some of them known at run time only, as one 1-D int64 tensor."""
    parts: list[Tensor] = []
    static_run: list[int] = []
    for size in sizes:
        if isinstance(size, Tensor):
            if static_run:
                parts.append(x.network.integers(tuple(static_run)))
                static_run = []
            parts.append(size if size.ndim == 1 else view(size, (1,)))
        else:
            static_run.append(size)
    if static_run:
        parts.append(x.network.integers(tuple(static_run)))
    return parts[0] if len(parts) == 1 else concat(parts)


def view(x: Tensor, dims: Sequence[int | Tensor]) -> Tensor:
    """x with other dimensions and the same elements in the same order.

    Args:
        x: any tensor.
        dims: 0 copies x's size at that position, -1 is what remains (once), a tensor of shape [1] is a size known at
            run time, as `shape(x, dim)` gives.
    """
    network = x.network
    resolved = _resolve(x, dims)
    layer = network.definition.add_shuffle(x.itensor)
    if any(isinstance(size, Tensor) for size in resolved):
        layer.set_input(1, sizes_tensor(x, resolved).itensor)
    else:
        layer.reshape_dims = network.trt.Dims(tuple(resolved))
    return network.add("view", layer)


reshape = view


def _resolve(x: Tensor, dims: Sequence[int | Tensor]) -> list[int | Tensor]:
    """The target sizes with all that is known statically filled in; remaining 0 and -1 are TensorRT's."""
    sizes: list[int | Tensor] = list(dims)
    copied = set()
    for i, size in enumerate(sizes):
        if isinstance(size, int) and size == 0:
            if i >= x.ndim:
                raise NetworkError(f"{x.network.where()}`view` of {x.shape} as {tuple(dims)}: nothing to copy at {i}")
            copied.add(i)
            sizes[i] = x.shape[i] if x.shape[i] >= 0 else 0
    unknown = [i for i, size in enumerate(sizes) if isinstance(size, int) and size == -1]
    if len(unknown) > 1:
        raise NetworkError(f"{x.network.where()}`view` of {x.shape} as {tuple(dims)}: more than one -1")
    dynamic = {i for i, size in enumerate(x.shape) if size < 0}
    if dynamic != copied & dynamic or any(isinstance(size, Tensor) for size in sizes):
        return sizes
    total = prod(size for size in x.shape if size >= 0)
    known = prod(size for size in sizes if isinstance(size, int) and size > 0)
    if unknown and known and total % known == 0:
        sizes[unknown[0]] = total // known
    elif unknown or total != known:
        raise NetworkError(f"{x.network.where()}`view` of {x.shape} as {tuple(dims)}: the numbers of elements differ")
    return sizes


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """x with the dimensions from start_dim to end_dim joined into one."""
    first, last = axis(x, start_dim), axis(x, end_dim)
    return view(x, [*([0] * first), -1, *(_size(x, i) for i in range(last + 1, x.ndim))])


def _size(x: Tensor, dim: int) -> int | Tensor:
    return x.shape[dim] if x.shape[dim] >= 0 else shape(x, dim)


def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    """x with its dimensions in another order: dimension i of the result is dimension dims[i] of x."""
    order = [axis(x, dim) for dim in dims]
    if sorted(order) != list(range(x.ndim)):
        raise NetworkError(f"{x.network.where()}`permute` of {x.shape} by {tuple(dims)}: each dimension comes once")
    layer = x.network.definition.add_shuffle(x.itensor)
    layer.first_transpose = x.network.trt.Permutation(order)
    return x.network.add("permute", layer)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """x with two dimensions exchanged."""
    order = list(range(x.ndim))
    a, b = axis(x, dim0), axis(x, dim1)
    order[a], order[b] = order[b], order[a]
    return permute(x, order)


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """x with a dimension of size 1 inserted at dim."""
    axes = x.network.integers((axis(x, dim, extra=1),))
    return x.network.add("unsqueeze", x.network.definition.add_unsqueeze(x.itensor, axes.itensor))


def squeeze(x: Tensor, dim: int) -> Tensor:
    """x without dimension dim, whose size is 1."""
    if x.shape[axis(x, dim)] > 1:
        return x  # as torch: only dimensions of size 1 are removed
    axes = x.network.integers((axis(x, dim),))
    return x.network.add("squeeze", x.network.definition.add_squeeze(x.itensor, axes.itensor))


def expand(x: Tensor, dims: Sequence[int | Tensor]) -> Tensor:
    """x repeated without a copy along dimensions of size 1.

    Args:
        x: any tensor; dimensions missing in front are added.
        dims: the new sizes; -1 keeps x's, a tensor of shape [1] is a size known at run time.
    """
    network = x.network
    x = network.operand(x, x.dtype, len(dims))
    sizes: list[int | Tensor] = [
        _size(x, i) if isinstance(size, int) and size == -1 else size for i, size in enumerate(dims)
    ]
    stride = tuple(0 if size == 1 else 1 for size in x.shape)
    is_dynamic = any(isinstance(size, Tensor) for size in sizes)
    fixed = tuple(1 if isinstance(size, Tensor) else size for size in sizes)
    layer = network.definition.add_slice(x.itensor, (0,) * x.ndim, fixed, stride)
    if is_dynamic:
        layer.set_input(2, sizes_tensor(x, sizes).itensor)
    return network.add("expand", layer)


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along dim. They have one data type."""
    network = network_of(*tensors)
    if len({tensor.dtype for tensor in tensors}) > 1:
        raise NetworkError(f"{network.where()}`concat` of {' and '.join(sorted({t.dtype for t in tensors}))}")
    layer = network.definition.add_concatenation([tensor.itensor for tensor in tensors])
    layer.axis = axis(tensors[0], dim)
    return network.add("concat", layer)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors side by side along a new dimension dim."""
    return concat([unsqueeze(tensor, dim) for tensor in tensors], dim)


def repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """x so many times in a row along each of its dimensions."""
    if len(repeats) != x.ndim:
        raise NetworkError(
            f"{x.network.where()}`repeat` of {x.shape} by {tuple(repeats)}: one number for each dimension"
        )
    for dim, count in enumerate(repeats):
        x = concat([x] * count, dim) if count > 1 else x
    return x


def repeat_interleave(x: Tensor, repeats: int, dim: int) -> Tensor:
    """Each element along dim `repeats` times in a row, as HF's `repeat_kv` does with heads."""
    position = axis(x, dim)
    size = static(x, position, "repeat_interleave")
    wide = unsqueeze(x, position + 1)
    wide = expand(wide, [repeats if i == position + 1 else -1 for i in range(wide.ndim)])
    after = [_size(x, i) for i in range(position + 1, x.ndim)]
    return view(wide, [*([0] * position), size * repeats, *after])
