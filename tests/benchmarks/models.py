"""Random Llama checkpoints of a chosen size, as Hugging Face directories: python models.py NAME DTYPE DIRECTORY.

A process of its own, because Linux counts a parent's peak memory as that of the commands it starts.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8},
    "300m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 20, "num_attention_heads": 16},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "2b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 30, "num_attention_heads": 32},
}


def write_llama(
    directory: Path, sizes: dict[str, int], *, dtype: torch.dtype, seed: int = 0, sharded: bool = False
) -> Path:
    """Write `config.json` and weights, N(0, 1/fan_in); returns `directory`.

    With a shard per tensor, one tensor is in memory at a time: the largest of these models has 16 GB.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **sizes, num_key_value_heads=8, vocab_size=32000, max_position_embeddings=2048, dtype=str(dtype).split(".")[1]
    )
    config.architectures = ["LlamaForCausalLM"]
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    if not sharded:
        weights = {name: _random(shape, dtype, generator) for name, shape in shapes.items()}
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        return directory

    def write(number: int, name: str, shape: torch.Size) -> None:
        weights = {name: _random(shape, dtype, torch.Generator().manual_seed(seed + number))}
        save_file(weights, directory / f"model-{number}.safetensors", metadata={"format": "pt"})

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # random numbers are drawn by one thread each
        list(pool.map(write, range(len(shapes)), *zip(*shapes.items(), strict=True)))
    names = {name: f"model-{number}.safetensors" for number, name in enumerate(shapes)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return directory


def _random(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Norm gains are one, matrices N(0, 1/fan_in)."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).to(dtype)


if __name__ == "__main__":
    write_llama(Path(sys.argv[3]), SIZES[sys.argv[1]], dtype=getattr(torch, sys.argv[2]), sharded=sys.argv[1] == "8b")
