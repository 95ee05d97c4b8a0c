"""What the KV cache holds after the prefill and the decode steps, beside Hugging Face's cache.

A port may keep keys in another form than Hugging Face, unrotated or with permuted features, if it reads them so: then
the decode steps' logits are right, and the difference is a warning. If they are not, the cache says where to look.

K key/value heads, S slots, H head size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from trtllm_port.verification.judge.gates import Gate, skipped
from trtllm_port.verification.judge.metrics import token_errors
from trtllm_port.verification.judge.tap_errors import judge
from trtllm_port.verification.judge.thresholds import RATIO
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.taps.runner import CacheLayer

PARTS = ("key", "value")
OTHER_FORM = "; the decode steps are right, so the port reads it as it wrote it: another form of the same"


def cache_gates(
    phase: tuple[str, str],
    port: Mapping[str, Tensor],
    sides: tuple[Sequence[CacheLayer], Sequence[CacheLayer]],
    decode: Sequence[Gate],
) -> list[Gate]:
    """Judge keys and values of all layers.

    Args:
        phase: its name, and the port's dtype.
        port: the port's cache of one row by the names of the network's inputs, each [1, K, S, H].
        sides: reference and yardstick.
        decode: the gates of the decode steps' logits.
    """
    return [_part_gate(phase, part, port, sides, decode) for part in PARTS]


def _part_gate(
    phase: tuple[str, str],
    part: str,
    port: Mapping[str, Tensor],
    sides: tuple[Sequence[CacheLayer], Sequence[CacheLayer]],
    decode: Sequence[Gate],
) -> Gate:
    (name, dtype), index = phase, PARTS.index(part)
    ratios: dict[int, float] = {}
    failed: list[int] = []
    for layer, (reference, yardstick) in enumerate(zip(*sides, strict=True)):
        own = port.get(f"past_key_values.{layer}.{part}")
        if own is None or reference is None or yardstick is None:
            continue
        expected_KSH, rough_KSH = reference[index], yardstick[index]
        own_KSH = own[0, :, : expected_KSH.shape[1]]
        if own_KSH.shape != expected_KSH.shape:
            continue
        floor = token_errors(rough_KSH, expected_KSH)
        found = judge(f"{part}s of layer {layer}", token_errors(own_KSH, expected_KSH), floor, dtype)
        ratios[layer] = float("inf") if found.ratio is None else found.ratio
        if found.diverged:
            failed.append(layer)
    if not sides[0]:
        return skipped(f"cache.{part}s", name, "Hugging Face's cache was not kept: the weights are read layer by layer")
    if not ratios:
        return skipped(f"cache.{part}s", name, "the port keeps no such cache as Hugging Face does")
    return _gate(name, part, ratios, failed, decode)


def _gate(phase: str, part: str, ratios: Mapping[int, float], failed: Sequence[int], decode: Sequence[Gate]) -> Gate:
    reason = f"the {part}s of {len(ratios)} layers after the decode steps"
    verdict = Verdict.PASS
    if failed:
        right = all(gate.verdict is not Verdict.FAIL for gate in decode)
        verdict = Verdict.WARN if right else Verdict.FAIL
        reason += f" differ in {len(failed)}, first in layer {failed[0]}" + (OTHER_FORM if right else "")
    return Gate(
        name=f"cache.{part}s",
        phase=phase,
        verdict=verdict,
        value=max(ratios.values()),
        threshold=RATIO.warns,
        reason=reason,
        source=RATIO.source,
    )
