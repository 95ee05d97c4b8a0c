"""The guilty module: the first whose output diverges although its input does not, as deep as possible.

Walking in the order in which modules complete, a child comes before its parent. So the first module with a clean input
and a diverged output is the deepest such one. If a child's input diverges while the parent's input is clean, no child
qualifies and the parent does: it is the parent's wiring that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtllm_port.verification.compare import TapComparison
from trtllm_port.verification.taps import LOGITS, ROOT, input_of, is_input, module_of, nearest_tapped_parent


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
    everything after that module: permuted queries and keys give the same attention.
    """
    marked = dict(taps)
    compared = [tap for tap in order if tap in taps]
    if LOGITS not in marked or marked[LOGITS].diverged:
        return marked
    place = {tap: index for index, tap in enumerate(compared)}
    last_failure = -1  # of those that are not benign, among the taps from here on
    for index in range(len(compared) - 1, -1, -1):
        tap = compared[index]
        if not marked[tap].diverged:
            continue
        holder = nearest_tapped_parent(module_of(tap), marked) or LOGITS
        if marked[tap].norms_kept and not marked[holder].diverged and last_failure < place[holder]:
            marked[tap] = marked[tap].as_benign()
        else:
            last_failure = max(last_failure, index)
    return marked
