"""Linear layers, whole and cut over ranks.

Shapes: x [*, in], weight [out, in] (Conv1D: [in, out]), bias [out] → [*, out].
"""

from __future__ import annotations

from trtllm_port.errors import ConfigError
from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.collective import all_gather, all_reduce
from trtllm_port.layers.operations.product import linear, matmul


class Linear(Module):
    """x weightᵀ + bias, as torch.nn.Linear.

    Args:
        in_features, out_features: sizes.
        bias: whether it has one.
        dtype: of the parameters; None: the config's.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: str | None = None) -> None:
        super().__init__()
        self.weight = Parameter((out_features, in_features), dtype)
        self.bias = Parameter((out_features,), dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class ColumnLinear(Module):
    """A linear layer of which each rank computes a part of the outputs.

    Args:
        in_features, out_features: of the whole layer.
        bias: whether it has one.
        mapping: None: one rank.
        gather_output: put the parts together on every rank; else the result is [*, out / tp_size].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mapping: Mapping | None = None,
        gather_output: bool = False,
    ) -> None:
        super().__init__()
        self.mapping = mapping or Mapping()
        self.gather_output = gather_output
        part = cut(out_features, self.mapping, "out_features")
        shard = (0, self.mapping.tp_size)
        self.weight = Parameter((part, in_features), shard=shard)
        self.bias = Parameter((part,), shard=shard) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x, self.weight, self.bias)
        return all_gather(y, self.mapping) if self.gather_output else y


class RowLinear(Module):
    """A linear layer of which each rank has a part of the inputs; the ranks' results are summed.

    Args:
        in_features, out_features: of the whole layer; x is [*, in / tp_size].
        bias: whether it has one; it is added once, after the sum.
        mapping: None: one rank.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, mapping: Mapping | None = None
    ) -> None:
        super().__init__()
        self.mapping = mapping or Mapping()
        part = cut(in_features, self.mapping, "in_features")
        self.weight = Parameter((out_features, part), shard=(1, self.mapping.tp_size))
        self.bias = Parameter((out_features,)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = all_reduce(linear(x, self.weight), self.mapping)
        return y if self.bias is None else y + self.bias


class Conv1D(Module):
    """x weight + bias: GPT-2's linear layer, whose weight is stored [in, out].

    The arguments have the order of transformers' `Conv1D`: outputs first.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = Parameter((in_features, out_features))
        self.bias = Parameter((out_features,))

    def forward(self, x: Tensor) -> Tensor:
        return matmul(x, self.weight) + self.bias


def cut(size: int, mapping: Mapping, what: str) -> int:
    """One rank's part of a size; ConfigError when the ranks cannot share it evenly."""
    if size % mapping.tp_size:
        raise ConfigError(f"{what} is {size}, which tp_size {mapping.tp_size} does not divide")
    return size // mapping.tp_size
