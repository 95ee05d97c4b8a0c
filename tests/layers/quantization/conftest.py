"""What the tests of quantized checkpoints share: sources made of tensors in memory, packers, formulas by indexing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.quantization import QuantizedSource, read_scheme
from trtllm_port.layers.weights import MappingWeights

E2M1_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


class Checkpoints:
    """Helpers; `torch.manual_seed` makes what is random the same in every run."""

    def open(self, tensors: Mapping[str, torch.Tensor], config: object, dtype: str = "float32") -> QuantizedSource:
        """The source of a checkpoint with this `quantization_config`."""
        scheme = read_scheme({"quantization_config": config})
        assert scheme is not None
        return QuantizedSource(MappingWeights(tensors), scheme, dtype)

    def refusal(self, tensors: Mapping[str, torch.Tensor], config: object) -> str:
        """The message with which a checkpoint is refused, by its headers or its values."""
        with pytest.raises(CheckpointError) as caught:
            self.open(tensors, config).check_values()
        return caught.value.message

    def spread(self, blocks: torch.Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> torch.Tensor:
        """Each element's block, looked up by its row and column."""
        rows, columns = torch.arange(shape[-2]) // block[0], torch.arange(shape[-1]) // block[1]
        return blocks[..., rows, :][..., columns]

    def float8(self, *shape: int) -> torch.Tensor:
        """Random finite codes of E4M3, with zeros and the largest ones."""
        codes = torch.randint(0, 127, shape, dtype=torch.uint8) | (torch.randint(0, 2, shape, dtype=torch.uint8) << 7)
        return codes.view(torch.float8_e4m3fn)

    def scales(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Random scales, none of them a power of two."""
        return (torch.rand(shape) * 0.02 + 0.001).to(dtype)

    def e2m1(self, codes: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor([E2M1_VALUES[int(code)] for code in codes.flatten()], dtype=dtype).reshape(codes.shape)

    def pack(self, rows: list[list[int]], bits: int, order: list[int] | None = None) -> torch.Tensor:
        """Numbers from 0, along each row, into 32-bit words: number j of one at place `order[j]` from the low end."""
        count = 32 // bits
        place = order or list(range(count))
        words = []
        for row in rows:
            padded = row + [0] * (-len(row) % count)
            values = [
                sum(padded[start + j] << (bits * place[j]) for j in range(count))
                for start in range(0, len(padded), count)
            ]
            words.append([value - (1 << 32) if value >= 1 << 31 else value for value in values])
        return torch.tensor(words, dtype=torch.int64).to(torch.int32)

    def pack_bytes(self, codes: torch.Tensor) -> torch.Tensor:
        """Nibbles in pairs, the first in the low half."""
        return (codes[..., 0::2] + 16 * codes[..., 1::2]).to(torch.uint8)

    def equal(self, source: QuantizedSource, name: str, expected: dict[torch.dtype, torch.Tensor]) -> None:
        """A weight is what the formula gives, to the bit, in every type."""
        weight = source.quantized(name)
        assert weight is not None
        for dtype, values in expected.items():
            found: Any = weight.parameter(dtype)
            assert found.dtype == dtype == values.dtype
            assert found.shape == values.shape == source.shape(name)
            assert torch.equal(found, values), (found - values).abs().max()
            assert torch.equal(found.signbit(), values.signbit())


@pytest.fixture
def checkpoints() -> Checkpoints:
    torch.manual_seed(0)
    return Checkpoints()
