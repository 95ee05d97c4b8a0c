"""Embedding tables."""

from __future__ import annotations

from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.definition.tensor import Tensor
from trtllm_port.layers.functional import embedding
from trtllm_port.layers.modules.module import Module


class Embedding(Module):
    """Rows of a table: ids [*] → [*, embedding_dim]."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter((num_embeddings, embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return embedding(ids, self.weight)
