"""The two optimization profiles of every engine: one token per row (decode), and whole prompts (context).

Shape suffixes: B batch, L tokens, T tokens whose logits are wanted, K key/value heads, S slots, H head size.
"""

from __future__ import annotations

from typing import Any

from trtllm_port.errors import EngineError
from trtllm_port.foundation.foreign import reason
from trtllm_port.runtime.engines.directory import BuildConfig
from trtllm_port.runtime.network.kv_cache import CACHE_PREFIX, STATE_PREFIX

__all__ = ["CONTEXT_PROFILE", "DECODE_PROFILE", "add_profiles"]

DECODE_PROFILE = 0
CONTEXT_PROFILE = 1
_TOKEN_INPUTS = ("input_ids", "position_ids", "logits_indices")
Shape = tuple[int, ...]


def add_profiles(network: Any, config: Any, build: BuildConfig) -> None:
    """Add both profiles to a builder configuration.

    Args:
        network: a `layers.Network`.
        config: its `trt.IBuilderConfig`.
        build: the limits.

    Raises:
        EngineError: the network has an input that is no token input, cache or state, or TensorRT refuses a range.
    """
    for longest in (1, build.max_input_len):  # in the order of DECODE_PROFILE, CONTEXT_PROFILE
        profile = network.builder.create_optimization_profile()
        for index in range(network.definition.num_inputs):
            tensor = network.definition.get_input(index)
            wanted = _range(tensor.name, tuple(tensor.shape), build.max_batch_size, longest)
            try:
                profile.set_shape(tensor.name, *wanted)
            except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # of its bindings, for huge numbers
                raise EngineError(
                    f"TensorRT takes no `{tensor.name}` of shape {list(wanted[-1])}: {reason(error)}",
                    hint="give a smaller `--max-batch-size`, `--max-input-len` or `--max-seq-len`",
                ) from error
        if config.add_optimization_profile(profile) < 0:
            reasons = "; ".join(text for _severity, text in network.logger.drain())
            raise EngineError(f"TensorRT refuses the profile of up to {longest} tokens: {reasons}")


def _range(name: str, shape: Shape, batch: int, longest: int) -> tuple[Shape, Shape, Shape]:
    """The least, the typical and the greatest shape of one input."""
    if name in _TOKEN_INPUTS:
        typical = 1 if name == "logits_indices" else longest
        return (1, 1), (batch, typical), (batch, longest)
    if name.startswith((CACHE_PREFIX, STATE_PREFIX)):
        return (1, *shape[1:]), (batch, *shape[1:]), (batch, *shape[1:])
    raise EngineError(f"the network has an input `{name}` that no session can feed")
