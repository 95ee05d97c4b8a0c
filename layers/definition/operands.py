"""What every family of functions needs: the operands' network, axes, and the check of data types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Network, Operand, Tensor
from trtllm_port.layers.definition.parameter import Parameter


def network_of(*operands: Any) -> Network:
    """The network of the first tensor, or of the first parameter, among the operands."""
    for kind in (Tensor, Parameter):
        for operand in operands:
            if isinstance(operand, kind) and operand.network is not None:
                return operand.network
    raise NetworkError("none of the operands is a tensor of a network")


def promote(operation: str, *operands: Operand) -> tuple[Network, list[Tensor]]:
    """Operands as tensors of one dtype and one rank: scalars become constants, ones are added in front as in torch.

    Raises:
        NetworkError: two data types: TensorRT has no type promotion, a cast must be written.
    """
    network = network_of(*operands)
    for operand in operands:
        if not isinstance(operand, Tensor | Parameter | bool | int | float):
            raise NetworkError(
                f"{network.where()}`{operation}` of `{operand!r}`, which is no tensor, parameter or scalar"
            )
    typed = [operand for operand in operands if isinstance(operand, Tensor | Parameter)]
    dtypes = dict.fromkeys(operand.dtype or network.dtype for operand in typed)
    if len(dtypes) > 1:
        raise NetworkError(
            f"{network.where()}`{operation}` of {' and '.join(dtypes)}", hint="cast one of them: `x.to(dtype)`"
        )
    ndim = max(len(operand.shape) for operand in typed)
    return network, [network.operand(operand, next(iter(dtypes)), ndim) for operand in operands]


def axis(x: Tensor, dim: int, extra: int = 0) -> int:
    """`dim` counted from the front; `extra` allows positions behind the last, as unsqueeze does."""
    ndim = x.ndim + extra
    if not -ndim <= dim < ndim:
        raise NetworkError(f"{x.network.where()}dimension {dim} of a tensor with {x.ndim} dimensions {x.shape}")
    return dim % ndim


def axes_mask(x: Tensor, dims: int | Iterable[int]) -> int:
    """Dimensions as TensorRT's bit mask."""
    mask = 0
    for dim in (dims,) if isinstance(dims, int) else dims:
        mask |= 1 << axis(x, dim)
    return mask


def require(x: Tensor, dtypes: Sequence[str], operation: str) -> None:
    """NetworkError unless `x` has one of the data types."""
    if x.dtype not in dtypes:
        raise NetworkError(f"{x.network.where()}`{operation}` of {x.dtype}", hint=f"cast it to {' or '.join(dtypes)}")


def static(x: Tensor, dim: int, operation: str) -> int:
    """The size of a dimension that must be known when the network is defined."""
    size = x.shape[axis(x, dim)]
    if size < 0:
        raise NetworkError(
            f"{x.network.where()}`{operation}` along dimension {dim} of {x.shape}, known at run time only"
        )
    return size
