"""The compiler's answers about fused attention kernels, against NVIDIA's documented limits on head size and type."""

from __future__ import annotations

import pytest
import tensorrt_rtx

from trtllm_port.layers import needs_decomposition
from trtllm_port.runtime.engines.fused_attention import AttentionShape, fused_attention


@pytest.mark.parametrize(
    ("dtype", "head_size", "fused"),
    [("float16", 64, True), ("bfloat16", 128, True), ("float16", 8, False), ("float32", 64, False)],
)
def test_fused_kernels(dtype: str, head_size: int, fused: bool, capfd: pytest.CaptureFixture[str]) -> None:
    shape = AttentionShape(8, 4, head_size, dtype, True)
    assert fused_attention(tensorrt_rtx, shape, ("8.6", "12.0")) == {"8.6": fused, "12.0": fused}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("head_size", [8, 16, 20, 256, 264])
@pytest.mark.parametrize(("query_heads", "key_value_heads"), [(1, 1), (2, 1), (3, 3), (4, 1), (4, 4), (6, 3)])
def test_the_compiler_agrees_with_the_rule(query_heads: int, key_value_heads: int, head_size: int) -> None:
    """As in an engine, which has a profile of one new token: it is there that few heads have no kernel."""
    shape = AttentionShape(query_heads, key_value_heads, head_size, "float16", True)
    expected = not needs_decomposition("float16", query_heads, head_size)
    assert fused_attention(tensorrt_rtx, shape, ("8.9",)) == {"8.9": expected}


def test_each_capability_is_asked_by_itself() -> None:
    shape = AttentionShape(8, 4, 64, "bfloat16", True)
    assert fused_attention(tensorrt_rtx, shape, ("7.5", "8.9")) == {"7.5": False, "8.9": True}
