"""Embedding tables."""

from __future__ import annotations

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.indexing import embedding


class Embedding(Module):
    """Rows of a table: ids [*] → [*, embedding_dim]."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter((num_embeddings, embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return embedding(ids, self.weight)
