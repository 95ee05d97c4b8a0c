"""Feed-forward blocks, with HF's names for their parts.

Shapes: B batch, L tokens, E hidden size, M intermediate size.
"""

from __future__ import annotations

from trtllm_port.layers.definition.mapping import Mapping
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.modules.activation import Activation
from trtllm_port.layers.modules.linear import ColumnLinear, RowLinear
from trtllm_port.layers.modules.module import Module


class MLP(Module):
    """down_proj(act(up_proj(x))).

    Args:
        hidden_size: E.
        intermediate_size: M.
        hidden_act: the activation's name in HF's config.
        bias: whether both projections have one.
        mapping: None: one rank; else M is cut over the ranks.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        hidden_act: str,
        bias: bool = True,
        *,
        mapping: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.up_proj = ColumnLinear(hidden_size, intermediate_size, bias, mapping=mapping)
        self.down_proj = RowLinear(intermediate_size, hidden_size, bias, mapping=mapping)
        self.act_fn = Activation(hidden_act)

    def forward(self, x_BLE: Tensor) -> Tensor:
        output_BLE: Tensor = self.down_proj(self.act_fn(self.up_proj(x_BLE)))
        return output_BLE


class GatedMLP(Module):
    """down_proj(act(gate_proj(x)) * up_proj(x)); arguments as `MLP`."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        hidden_act: str = "silu",
        bias: bool = False,
        *,
        mapping: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.gate_proj = ColumnLinear(hidden_size, intermediate_size, bias, mapping=mapping)
        self.up_proj = ColumnLinear(hidden_size, intermediate_size, bias, mapping=mapping)
        self.down_proj = RowLinear(intermediate_size, hidden_size, bias, mapping=mapping)
        self.act_fn = Activation(hidden_act)

    def forward(self, x_BLE: Tensor) -> Tensor:
        output_BLE: Tensor = self.down_proj(self.act_fn(self.gate_proj(x_BLE)) * self.up_proj(x_BLE))
        return output_BLE
