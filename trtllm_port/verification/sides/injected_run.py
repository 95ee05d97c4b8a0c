"""The injected run: what error does each module make itself?

The port runs once more, and every tap, once compared, continues with Hugging Face's value. So nothing is inherited: an
error at a module's output was made in that module, an error at a module's input in the code that calls it, and several
bugs show in one run. The floor is Hugging Face in the port's dtype under the same treatment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from trtllm_port.verification.judge.tap_errors import NO_SUCH_TAP, TapComparison
from trtllm_port.verification.sides.port_run import Expected, everywhere, run_port
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import LOGITS, is_input, module_of, nearest_tapped_parent, parent_of, within
from trtllm_port.verification.taps.runner import PortRunner

MAX_FREED = 3  # queries and keys, then the context, then whatever else a re-parameterisation may pass through


def run_injected(port: PortRunner, stimulus: Stimulus, expected: Expected) -> dict[str, TapComparison]:
    """Return every module's own error.

    Values that are merely another form of Hugging Face's, such as permuted heads, must not be mixed with its own. A
    failing tap that keeps its tokens' norms may be one: it is let through in another run, and so are those that it
    makes fail in the same manner. If the module that holds them comes out right, they are benign.

    Args:
        port: the port.
        stimulus: the input.
        expected: what to compare with; the floors are those of the injected yardstick.
    """
    own = freed = run_port(port, stimulus, expected, everywhere).comparisons
    suspects: frozenset[str] = frozenset()
    for _ in range(MAX_FREED):
        more = suspects | {tap for tap, found in freed.items() if found.diverged and found.norms_kept and tap != LOGITS}
        if more == suspects:
            break
        suspects = more
        freed = run_port(port, stimulus, expected, partial(_is_not_in, suspects)).comparisons
    benign = {tap for tap in suspects if _harmless(tap, (own, freed), suspects)}
    if not benign:
        return own
    if benign != suspects:
        freed = run_port(port, stimulus, expected, partial(_is_not_in, benign)).comparisons
    return freed | {tap: freed[tap].as_benign() for tap in benign if freed[tap].diverged}


def _is_not_in(taps: Collection[str], tap: str) -> bool:
    return tap not in taps


def _harmless(tap: str, runs: tuple[Mapping[str, TapComparison], ...], suspects: Collection[str]) -> bool:
    """Whether the module that holds a tap works with the port's value: its wiring and its output are right.

    And so is everything in it that was right when it worked on Hugging Face's value.
    """
    own, freed = runs
    holder = nearest_tapped_parent(module_of(tap), freed) or LOGITS
    inside = [each for each in freed if within(module_of(each), module_of(holder))]
    minding = [each for each in inside if is_input(each) or not (each in own and own[each].diverged)]
    return not any(freed[each].diverged for each in (*minding, holder) if each not in suspects)


def own_divergences(order: Sequence[str], own: Mapping[str, TapComparison]) -> tuple[str, ...]:
    """Return the paths of all guilty modules ("" is the model itself), in Hugging Face's order.

    Args:
        order: all taps in that order.
        own: the comparisons of the injected run.
    """
    known = frozenset(order)
    guilty = (_culprit(tap, own, known) for tap in order if tap in own and own[tap].diverged)
    return tuple(dict.fromkeys(guilty))


def _culprit(tap: str, own: Mapping[str, TapComparison], known: Collection[str]) -> str:
    """The module that a tap's error is made in; of what is not there at all the whole."""
    module = module_of(tap)
    if is_input(tap):
        return nearest_tapped_parent(module, own)
    if own[tap].note == NO_SUCH_TAP:
        while (parent := parent_of(module)) in known and (parent not in own or own[parent].note == NO_SUCH_TAP):
            module = parent
    return module
