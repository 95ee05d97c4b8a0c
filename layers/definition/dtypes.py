"""Data types by name: the public API says "float16", torch and TensorRT have objects for it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from trtllm_port.errors import NetworkError

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}
FLOAT_DTYPES = ("float32", "float16", "bfloat16")
#: Types of constants that a layer dequantizes, and of nothing else → TensorRT's name.
NARROW_DTYPES = {
    "int8": "INT8",
    "int4": "INT4",
    "float8_e4m3fn": "FP8",
    "float8_e8m0fnu": "E8M0",
    "float4_e2m1fn": "FP4",
}
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype called `name`; NetworkError lists the known names."""
    if name not in TORCH_DTYPES:
        raise NetworkError(f"unknown data type `{name}`", hint=f"one of {', '.join(TORCH_DTYPES)}")
    return TORCH_DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype; NetworkError when TensorRT ports have no such type."""
    if dtype not in _NAMES:
        raise NetworkError(f"data type `{dtype}` is not supported", hint=f"one of {', '.join(TORCH_DTYPES)}")
    return _NAMES[dtype]


def trt_dtype(trt: ModuleType, name: str) -> Any:
    """The `trt.DataType` called `name`."""
    if name in NARROW_DTYPES:
        return getattr(trt.DataType, NARROW_DTYPES[name])
    torch_dtype(name)  # refuses unknown names
    return getattr(trt, name)


def trt_dtype_name(trt: ModuleType, dtype: Any) -> str:
    """The name of a `trt.DataType`."""
    for name in (*TORCH_DTYPES, *NARROW_DTYPES):
        if trt_dtype(trt, name) == dtype:
            return name
    raise NetworkError(f"TensorRT data type `{dtype}` is not supported", hint=f"one of {', '.join(TORCH_DTYPES)}")
