"""What the inputs of a network were in all runs of a phase: one that never differed could be ignored by the port.

A port that takes the first row's `logits_indices` for all rows is right as long as all rows ask for the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

ROWS, STEPS = "rows", "steps"
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer: all layers of a kind run the same code


class InputLog:
    """Notes of each input whether rows of a batch differed, and runs. What is known is not looked at again.

    Attributes:
        differed: input → in which ways, of "rows" and "steps".
    """

    def __init__(self) -> None:
        self.differed: dict[str, set[str]] = {}
        self._first: dict[str, tuple[object, ...]] = {}

    def note(self, feeds: Mapping[str, Tensor]) -> None:
        """Look at what a network is fed, or at its cache after a run."""
        for name, value in feeds.items():
            differed = self.differed.setdefault(name, set())
            if ROWS not in differed and bool((value[1:] != value[:1]).any()):
                differed.add(ROWS)
            if STEPS not in differed:
                seen = (*value.shape[1:], float(value[0].double().sum()))
                if self._first.setdefault(name, seen) != seen:
                    differed.add(STEPS)


def never_differed(logs: Iterable[Mapping[str, Iterable[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Give (way, inputs that never differed so), of all phases together; layers' numbers are left out.

    Args:
        logs: `InputLog.differed` of each phase.
    """
    together: dict[str, set[str]] = {}
    for log in logs:
        for name, ways in log.items():
            together.setdefault(NUMBER.sub("*", name), set()).update(ways)
    for way in (ROWS, STEPS):
        if same := [name for name, ways in together.items() if way not in ways]:
            yield way, same
