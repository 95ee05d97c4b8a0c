"""Rotary position embeddings.

Shapes: B batch, L new tokens, F frequencies (half the rotated part of a head).
"""

from __future__ import annotations

from typing import Any

import torch

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.functional.rope import dynamic_exponents, inverse_frequencies, longrope_long, stretched_by_alpha
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.elementwise import maximum, where
from trtllm_port.layers.operations.reduction import max
from trtllm_port.layers.operations.shaping import unsqueeze
from trtllm_port.layers.operations.unary import cos, sin


class RotaryEmbedding(Module):
    """Cosines and sines of the tokens' positions, computed in float32 inside the network, then cast, as HF does.

    HF repeats the F angles to fill a head; `rotary_embedding` needs them once.

    Args:
        rope_parameters: HF's dict: `rope_theta`, `rope_type` and the type's own parameters; see
            `layers/functional/rope.py`.
        dim: the rotated part of a head's size.
        max_position_embeddings: the config's; without effect for the types that do not ask for it.
        dtype: of the tables; that of the hidden states by default.
        by_alpha: an `alpha` among the parameters stretches the base, as in HunYuan.
    """

    def __init__(
        self,
        rope_parameters: dict[str, Any],
        dim: int,
        max_position_embeddings: int = 0,
        *,
        dtype: str | None = None,
        by_alpha: bool = False,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.inv_freq_F, self.attention_scaling = inverse_frequencies(
            rope_parameters, dim, max_position_embeddings, by_alpha=by_alpha
        )
        self.long_inv_freq_F: torch.Tensor | None = None
        if rope_parameters.get("rope_type") == "longrope":
            self.long_inv_freq_F = longrope_long(rope_parameters, dim, max_position_embeddings)[0]
            self.short_context = int(rope_parameters["original_max_position_embeddings"])
        self.growth_exponents_F: torch.Tensor | None = None
        if rope_parameters.get("rope_type") == "dynamic" and not (by_alpha and stretched_by_alpha(rope_parameters)):
            self.growth_exponents_F = dynamic_exponents(dim)
            self.factor, self.context = float(rope_parameters["factor"]), max_position_embeddings

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin), each [B, L, F], in the layer's data type or that of x."""
        angles_BLF = unsqueeze(position_ids, 2).float() * self._frequencies(position_ids)
        return tuple(  # type: ignore[return-value]  # two of them
            (
                function(angles_BLF) * self.attention_scaling if self.attention_scaling != 1.0 else function(angles_BLF)
            ).to(self.dtype or x.dtype)
            for function in (cos, sin)
        )

    def _frequencies(self, position_ids: Tensor) -> Tensor:
        network = position_ids.network
        short_11F = network.constant(self.inv_freq_F[None, None])
        if self.growth_exponents_F is not None:
            return short_11F * self._growth(position_ids) ** network.constant(self.growth_exponents_F[None, None])
        if self.long_inv_freq_F is None:
            return short_11F
        is_long_11 = max(position_ids, (0, 1), keepdim=True) >= self.short_context  # the length is one more
        return where(unsqueeze(is_long_11, 2), network.constant(self.long_inv_freq_F[None, None]), short_11F)

    def _growth(self, position_ids: Tensor) -> Tensor:
        """[1, 1, 1] float32: 1 up to the context that the model was trained for, more beyond."""
        length_11 = max(position_ids, (0, 1), keepdim=True).float() + 1.0
        times_11 = maximum(length_11, float(self.context)) / float(self.context)
        return unsqueeze(times_11 * self.factor - (self.factor - 1.0), 2)
