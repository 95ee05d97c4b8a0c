"""The guilty module: the first whose output diverges although its input does not, as deep as possible.

Walking in the order in which modules complete, a child comes before its parent. So the first module with a clean input
and a diverged output is the deepest such one. If a child's input diverges while the parent's input is clean, no child
qualifies and the parent does: it is the parent's wiring that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.taps.names import LOGITS, ROOT, input_of, is_input, module_of, nearest_tapped_parent


def first_divergence(order: Sequence[str], taps: Mapping[str, TapComparison]) -> str | None:
    """Return the path of the guilty module ("" is the model itself), or None if no tap fails.

    Args:
        order: all taps in HF's execution order.
        taps: their comparisons.
    """
    known = set(order)
    failing = [tap for tap in order if tap in taps and taps[tap].diverged]
    failing += [tap for tap in taps if tap not in known and taps[tap].diverged]
    if not failing:
        return None
    for known_input_only in (True, False):
        for tap in failing:
            if not is_input(tap) and _input_clean(tap, taps, known_input_only):
                return module_of(tap)
    return nearest_tapped_parent(module_of(failing[0]), taps)


def _input_clean(tap: str, taps: Mapping[str, TapComparison], known_input_only: bool) -> bool:
    if module_of(tap) == ROOT:
        return True  # the model's input are the token ids, the same for all
    comparison = taps.get(input_of(tap))
    return not known_input_only if comparison is None else not comparison.diverged


def mark_benign(order: Sequence[str], taps: Mapping[str, TapComparison]) -> dict[str, TapComparison]:
    """Turn failures that are mere re-parameterisations into warnings.

    A failing tap is benign if its tokens keep their norms, the module that holds it comes out clean, and so does
    everything after the tap that is not benign itself: permuted queries and keys give the same attention, a permuted
    router chooses other experts.
    """
    marked = dict(taps)
    if LOGITS not in marked or marked[LOGITS].diverged:
        return marked
    for tap in (tap for tap in reversed(order) if tap in taps and taps[tap].diverged):
        holder = nearest_tapped_parent(module_of(tap), marked) or LOGITS
        if not marked[tap].norms_kept or marked[holder].diverged:
            break  # what failed before it may be what it fails by
        marked[tap] = marked[tap].as_benign()
    return marked
