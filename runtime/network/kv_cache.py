"""What a network remembers, as torch tensors: KV caches and states, one for each such network input.

`past_key_values.{layer}.{key|value|indexer_key}` are updated in place. `past_states.{layer}.{name}` are replaced by the
outputs `present_states.{layer}.{name}` after each run: a recurrence reads its state until it ends.

A slot of the cache is a position of the sequence. So prompts of different lengths are padded on the right, a row's next
token overwrites what the padding wrote at its position, and no row can see a slot beyond its own position.

Shape suffixes: B batch, K key/value heads, S slots (`max_seq_len`), H head size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from trtllm_port.errors import EngineError
from trtllm_port.foundation.foreign import reason

if TYPE_CHECKING:
    from trtllm_port.runtime.network.executor import TensorSpec

__all__ = ["CACHE_PREFIX", "STATE_PREFIX", "allocate_cache", "present_name", "replace_states"]

CACHE_PREFIX = "past_key_values."
STATE_PREFIX = "past_states."


def present_name(past_name: str) -> str:
    """The output that belongs to a cache input: `past_key_values.0.key` to `present_key_values.0.key`."""
    return "present" + past_name.removeprefix("past")


def replace_states(feeds: Mapping[str, torch.Tensor], outputs: MutableMapping[str, torch.Tensor]) -> None:
    """Copy the states that a run gave over those that it was fed; the outputs are then these tensors."""
    for name, past in feeds.items():
        if name.startswith(STATE_PREFIX) and present_name(name) in outputs:
            outputs[present_name(name)] = past.copy_(outputs[present_name(name)])


def allocate_cache(
    inputs: Iterable[TensorSpec], batch: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Zeroed caches [B, K, S, H] and states [B, …], one for each such input of a network.

    Args:
        inputs: the network's inputs; those that are no caches are passed over.
        batch: the number of rows.
        device: where the executor computes.
    """
    caches = {}
    for spec in inputs:
        if spec.name.startswith((CACHE_PREFIX, STATE_PREFIX)):
            shape = (batch, *spec.shape[1:])
            try:
                caches[spec.name] = _zeros(shape, getattr(torch, spec.dtype), torch.device(device))
            except (ValueError, MemoryError, RuntimeError) as error:  # of numpy, of the system, of a GPU
                raise EngineError(
                    f"there is no memory for `{spec.name}` of shape {list(shape)} in {spec.dtype}: {reason(error)}",
                    hint="build with a smaller `--max-seq-len`, or give fewer prompts at once",
                ) from error
    return caches


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on the CPU as pages that the system hands out when they are first touched.

    A cache is as long as the longest sequence that could come, and most runs use little of it. numpy asks the system
    for zeroed pages, torch writes zeros: for a cache of 2048 slots that was a sixth of a short prompt's prefill.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
