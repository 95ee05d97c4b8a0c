"""The compiler's answers about fused attention kernels, against NVIDIA's documented limits on head size and type."""

from __future__ import annotations

import pytest
import tensorrt_rtx

from trtllm_port.runtime.builder_attention import AttentionShape, fused_attention


@pytest.mark.parametrize(
    ("dtype", "head_size", "fused"),
    [("float16", 64, True), ("bfloat16", 128, True), ("float16", 8, False), ("float32", 64, False)],
)
def test_fused_kernels(dtype: str, head_size: int, fused: bool, capfd: pytest.CaptureFixture[str]) -> None:
    shape = AttentionShape(8, 4, head_size, dtype, True)
    assert fused_attention(tensorrt_rtx, shape, ("8.6", "12.0")) == {"8.6": fused, "12.0": fused}
    assert capfd.readouterr().err == ""


def test_each_capability_is_asked_by_itself() -> None:
    shape = AttentionShape(8, 4, 64, "bfloat16", True)
    assert fused_attention(tensorrt_rtx, shape, ("7.5", "8.9")) == {"7.5": False, "8.9": True}
