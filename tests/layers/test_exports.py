"""What the package promises to export: ports are written against it."""

from __future__ import annotations

from trtllm_port import layers
from trtllm_port.layers import functional

CLASSES = """
ACT2FN Activation Attention CausalConv1d Chunk ColumnLinear Concat Conv1D DecoderLayerList DecoderModelForCausalLM
Drop Embedding Every Experts GatedMLP HuggingFaceWeights KVCache LayerNorm Linear MLP MOE Mapping Module ModuleList
Network OneOf Parameter PretrainedConfig PretrainedModel RmsNorm RotaryEmbedding RowLinear Search Stack State Tensor
TokenShift TopKRouter Transform Transpose WeightMap normal_quantile plan_weights ModuleDict
share_weights
"""


def test_exports_are_pinned() -> None:
    assert sorted(layers.__all__) == sorted([*CLASSES.split(), *functional.__all__])
    assert all(hasattr(layers, name) for name in layers.__all__)
