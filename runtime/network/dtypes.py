"""The names of dtypes: ours, TensorRT's enumerators, and the torch dtype that holds the values."""

from __future__ import annotations

import torch

# TensorRT's DataType enumerator → our name (and the torch dtype that stores it)
FROM_TENSORRT: dict[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
    "FP8": "float8_e4m3fn",
    "INT4": "int4",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
}

STORAGE: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "int4": torch.int8,  # one element each, -8 to 7: torch has no 4-bit tensors
    "float4_e2m1fn": torch.float8_e4m3fn,  # one element each: every 4-bit value is an 8-bit value
    "float8_e8m0fnu": torch.float8_e8m0fnu,
}

#: Constants of these may also be held as a checkpoint has them: two elements in a byte, the first in its low half.
PACKED = ("int4", "float4_e2m1fn")
