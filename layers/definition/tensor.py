"""`Tensor`: a TensorRT tensor that knows its network, with torch's operators and methods.

Every method is a call of the function of the same name in `layers/operations/`; the functions are documented there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from trtllm_port.layers.definition.parameter import Parameter

if TYPE_CHECKING:
    from trtllm_port.layers.definition.network import Network

Scalar: TypeAlias = bool | int | float
Operand: TypeAlias = "Tensor | Parameter | Scalar"


class Tensor:
    """One tensor of a network that is being defined.

    Attributes:
        itensor: the `trt.ITensor`.
        network: the `Network` it belongs to.
        shape: sizes, -1 where only known when the engine runs.
        dtype: "float32", "float16", "bfloat16", "int64", "int32" or "bool".
    """

    __slots__ = ("dtype", "itensor", "network", "shape")

    def __init__(self, itensor: Any, network: Network, shape: tuple[int, ...], dtype: str) -> None:
        self.itensor = itensor
        self.network = network
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        return str(self.itensor.name)

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    __hash__ = object.__hash__

    def __add__(self, other: Operand) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return F.sub(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return F.sub(other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return F.mul(self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return F.mul(other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return F.div(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return F.div(other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return F.floordiv(self, other)

    def __mod__(self, other: Operand) -> Tensor:
        return F.remainder(self, other)

    def __pow__(self, other: Operand) -> Tensor:
        return F.pow(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return F.pow(other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return F.matmul(other, self)

    def __neg__(self) -> Tensor:
        return F.neg(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as torch's
        return F.eq(self, other)  # type: ignore[arg-type]  # F.eq refuses what is no operand

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return F.ne(self, other)  # type: ignore[arg-type]

    def __lt__(self, other: Operand) -> Tensor:
        return F.lt(self, other)

    def __le__(self, other: Operand) -> Tensor:
        return F.le(self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return F.gt(self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return F.ge(self, other)

    def __and__(self, other: Operand) -> Tensor:
        return F.op_and(self, other)

    def __or__(self, other: Operand) -> Tensor:
        return F.op_or(self, other)

    def __xor__(self, other: Operand) -> Tensor:
        return F.op_xor(self, other)

    def __invert__(self) -> Tensor:
        return F.op_not(self)

    def __bool__(self) -> bool:
        raise TypeError("the truth of a tensor is only known when the engine runs: use `where` or `op_and`, `op_or`")

    def __getitem__(self, index: Any) -> Tensor:
        return F.slice_index(self, index)

    def to(self, dtype: str) -> Tensor:
        return F.cast(self, dtype)

    def float(self) -> Tensor:
        return F.cast(self, "float32")

    def view(self, *dims: int | Tensor) -> Tensor:
        return F.view(self, dims)

    reshape = view

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return F.flatten(self, start_dim, end_dim)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return F.transpose(self, dim0, dim1)

    def permute(self, *dims: int) -> Tensor:
        return F.permute(self, dims)

    def unsqueeze(self, dim: int) -> Tensor:
        return F.unsqueeze(self, dim)

    def squeeze(self, dim: int) -> Tensor:
        return F.squeeze(self, dim)

    def expand(self, *dims: int | Tensor) -> Tensor:
        return F.expand(self, dims)

    def repeat(self, *repeats: int) -> Tensor:
        return F.repeat(self, repeats)

    def split(self, sizes: int | tuple[int, ...] | list[int], dim: int = 0) -> tuple[Tensor, ...]:
        return F.split(self, sizes, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        return F.chunk(self, chunks, dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        return F.unbind(self, dim)

    def sum(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
        return F.sum(self, dim, keepdim)

    def mean(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
        return F.mean(self, dim, keepdim)

    def max(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
        return F.max(self, dim, keepdim)

    def min(self, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
        return F.min(self, dim, keepdim)

    def softmax(self, dim: int, dtype: str | None = None) -> Tensor:
        return F.softmax(self, dim, dtype)

    def pow(self, exponent: Operand) -> Tensor:
        return F.pow(self, exponent)

    def exp(self) -> Tensor:
        return F.exp(self)

    def sqrt(self) -> Tensor:
        return F.sqrt(self)

    def rsqrt(self) -> Tensor:
        return F.rsqrt(self)

    def sin(self) -> Tensor:
        return F.sin(self)

    def cos(self) -> Tensor:
        return F.cos(self)

    def tanh(self) -> Tensor:
        return F.tanh(self)

    def sigmoid(self) -> Tensor:
        return F.sigmoid(self)

    def abs(self) -> Tensor:
        return F.abs(self)


from trtllm_port.layers import functional as F
