"""Small numbers in larger words: how formats lay 4-bit and 8-bit codes into bytes and 32-bit words, and E2M1's values.

All formats that are read here put the first element into the lowest bits; AWQ alone permutes the elements of a word.
Sources: compressed-tensors `compressors/pack_quantized/helpers.py`, gptqmodel `nn_modules/qlinear/__init__.py`,
autoawq `utils/packing_utils.py`; E2M1: OCP Microscaling Formats (MX) Specification 1.0.
"""

from __future__ import annotations

import sys

import torch

#: The value of each E2M1 code: sign, two bits of exponent, one of mantissa.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
#: Element j of the eight in an AWQ word is in its nibble AWQ_NIBBLES[j].
AWQ_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Bytes [..., n] of two codes each → codes [..., 2n], uint8, the low nibble first."""
    data = packed.view(torch.uint8)
    return torch.stack((data & 15, data >> 4), -1).flatten(-2)


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Words [..., n], int32, of codes of 4 or 8 bits → codes [..., n * 32 / bits], uint8, the lowest bits first."""
    # a copy, for `contiguous` leaves odd strides of axes of size 1, of which there is no view
    data = words.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    if sys.byteorder == "big":
        data = data.reshape(*words.shape, 4).flip(-1).flatten(-2)
    return data if bits == 8 else unpack_nibbles(data)


def unpack_awq(words: torch.Tensor) -> torch.Tensor:
    """Words [..., n], int32, of AWQ's GEMM order → codes [..., 8n], uint8."""
    return unpack_words(words, 4).reshape(*words.shape, 8)[..., list(AWQ_NIBBLES)].flatten(-2)


def signed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes that count from 0, uint8 → int8 around 0: less by 2^(bits-1)."""
    return codes.to(torch.int16).sub_(1 << (bits - 1)).to(torch.int8)


def from_twos_complement(nibbles: torch.Tensor) -> torch.Tensor:
    """Nibbles, uint8, in two's complement → int8."""
    return (nibbles ^ 8).to(torch.int8) - 8


def from_e2m1(codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Codes of E2M1, uint8 → their values, exact in every floating-point type of 16 bits and more."""
    return torch.tensor(E2M1, dtype=dtype)[codes.long()]


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """The inverse of `unpack_nibbles`: codes [..., 2n], uint8, below 16 → bytes [..., n]."""
    return codes[..., ::2] | codes[..., 1::2] << 4
