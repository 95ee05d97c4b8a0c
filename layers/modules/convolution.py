"""Short convolutions of recurrent layers, and shifts by one token.

Shapes: B batch, E channels, L new tokens, K kernel size, P = K - 1 tokens before.
"""

from __future__ import annotations

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.functional.attention import gather_tokens
from trtllm_port.layers.functional.states import State
from trtllm_port.layers.modules.activation import ACT2FN
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.creation import arange
from trtllm_port.layers.operations.shaping import concat, transpose, unsqueeze
from trtllm_port.layers.operations.slicing import slice


class CausalConv1d(Module):
    """Every channel's weighted sum over its last K tokens: `torch.nn.Conv1d` with one group per channel.

    The state holds the K - 1 tokens before. Sums are computed in float32 and rounded once, as torch does.

    Args:
        channels: E; the weight is [E, 1, K], as torch's.
        kernel_size: K.
        bias: whether there is one, [E].
        activation: the name of one that follows, a key of `ACT2FN`.
        channels_last: x and the result are [B, L, E].
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.weight = Parameter((channels, 1, kernel_size))
        if bias:
            self.bias = Parameter((channels,))
        self.has_bias = bias
        self.activation = activation
        self.channels_last = channels_last

    def forward(self, x_BEL: Tensor, state: State) -> Tensor:
        """Convolve new tokens with those before them.

        Args:
            x_BEL: the new tokens.
            state: the tokens before, [E, P].

        Returns:
            [B, E, L] of x's data type.
        """
        if self.channels_last:
            out_BEL = transpose(self._convolved(transpose(x_BEL, 1, 2), state), 1, 2)
        else:
            out_BEL = self._convolved(x_BEL, state)
        return ACT2FN[self.activation](out_BEL) if self.activation else out_BEL

    def _convolved(self, x_BEL: Tensor, state: State) -> Tensor:
        before = self.kernel_size - 1
        known_BES = concat([state.past((self.channels, before), x_BEL.dtype), x_BEL], 2)
        state.keep(self._last(known_BES, state))
        wide_BES = known_BES.float()
        weight_1EK = x_BEL.network.parameter(self.weight).view(1, self.channels, self.kernel_size).float()
        taps = (
            slice(wide_BES, 2, k, k - before if k < before else None) * weight_1EK[:, :, k : k + 1]
            for k in range(self.kernel_size)
        )
        out_BEL = next(taps)
        for tap in taps:
            out_BEL = out_BEL + tap
        if self.has_bias:
            out_BEL = out_BEL + x_BEL.network.parameter(self.bias).view(1, self.channels, 1).float()
        return out_BEL.to(x_BEL.dtype)

    def _last(self, known_BES: Tensor, state: State) -> Tensor:
        """The last P tokens of each row that are no padding, [B, E, P]."""
        counts_B1 = state.token_counts()
        indices_BP = counts_B1 + unsqueeze(arange(self.kernel_size - 1, like=counts_B1), 0)
        return transpose(gather_tokens(transpose(known_BES, 1, 2), indices_BP), 1, 2)


class TokenShift(Module):
    """Every token's predecessor; zeros before the first: `torch.nn.ZeroPad2d((0, 0, 1, -1))`. The state holds it."""

    def forward(self, x_BLE: Tensor, state: State) -> Tensor:
        """[B, L, E], of the tokens one earlier."""
        known_BSE = concat([state.past((1, x_BLE.shape[2]), x_BLE.dtype), x_BLE], 1)
        state.keep(gather_tokens(known_BSE, state.token_counts()))
        return known_BSE[:, :-1]
