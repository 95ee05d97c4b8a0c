"""Linear layers that keep a data type of their own."""

from __future__ import annotations

import torch
from torch import nn

from trtllm_port.codegen.ir.dtypes import TRACE_DTYPE
from trtllm_port.codegen.lower.lowering import _in_own_dtype
from trtllm_port.codegen.record.probing import probe


def test_a_linear_layer_says_what_data_type_it_keeps() -> None:
    kept = nn.Linear(6, 4, dtype=torch.float32)
    leaf = _in_own_dtype(probe(kept), kept)
    assert leaf is not None
    assert leaf.keywords == {"bias": True, "dtype": "float32"}
    usual = nn.Linear(6, 4, dtype=TRACE_DTYPE)
    assert _in_own_dtype(probe(usual), usual) == probe(usual)
