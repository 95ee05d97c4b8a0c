"""The data type that traces run in, and what data types are called in nodes."""

from __future__ import annotations

import torch

TRACE_DTYPE = torch.bfloat16  # so that the casts to float32 in the modelling code are seen
MODEL_DTYPE = "model dtype"  # the precision of the trace stands for the port's own
DTYPES = {
    TRACE_DTYPE: MODEL_DTYPE,
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.bool: "bool",
}
RMS_EPS = torch.finfo(torch.float32).eps  # of torch's `rms_norm` where none is given, in half precision, too
