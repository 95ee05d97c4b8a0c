"""The variables of a `forward`: what each value is called at the place that its text has reached.

A name is given again once its old value is no longer needed, as HF does (`hidden_states = …`); where HF kept the old
value under another name first (`residual = hidden_states`), so does the port.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping

from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.write.live_ranges import LiveRanges


class Variables:
    """Names the values of one `forward`.

    Args:
        preferred: names for values whatever HF's variable here: the cache, the model's inputs.
        common: for values that have no variable here, the name that they have elsewhere.
        reserved: names that must not be variables.

    Attributes:
        ranges: until when each value is needed.
        lines: the text so far.
        names: what values are called now.
        forced: what a side of a branch gives, by the name that it has behind the branch.
        protected: what keeps its name while a side of a branch is written.
    """

    def __init__(self, preferred: Mapping[Value, str], common: Mapping[Value, str], reserved: Collection[str]) -> None:
        self.preferred = preferred
        self.common = common
        self.reserved = reserved
        self.ranges = LiveRanges(self.candidates)
        self.lines: list[str] = []
        self.names: dict[Value, str] = {}
        self.forced: dict[Value, str] = {}
        self.protected: set[Value] = set()

    def candidates(self, value: Value, block: Block) -> list[str]:
        """The names that HF's code here gave to a value; not those of containers that hold it."""
        if value in self.preferred:
            return [self.preferred[value]]
        found = [name for name in block.names.get(value, ()) if not name.endswith("[]")]
        return [name for name in found if name not in self.reserved and not keyword.iskeyword(name)]

    def bind(self, value: Value, block: Block, position: int, fallback: str = "x") -> str:
        """Give `value` its name at a statement; a value that still needs this name gets another one first."""
        last_use = self.ranges.last_use
        for held in [held for held in self.names if last_use.get(held, -1) < position]:
            del self.names[held]
        name = self._name(value, block, fallback)
        holder = next((held for held, own in self.names.items() if own == name and held is not value), None)
        if holder is not None and last_use[holder] > position:
            taken = set(self.names.values())
            other = next((n for n in self.candidates(holder, block) if n not in taken), None)
            if other is not None and position >= 0 and holder not in self.protected:
                self.lines.append(f"{other} = {name}")
                self.names[holder] = other
            else:
                own = (n for n in self.candidates(value, block) if n not in taken)
                name = next(own, self._numbered(name))
        elif holder is not None:
            del self.names[holder]
        self.names[value] = name
        return name

    def _name(self, value: Value, block: Block, fallback: str) -> str:
        if value in self.forced:
            return self.forced[value]
        if value in self.ranges.loop_names:
            return self.ranges.loop_names[value]
        names = self.candidates(value, block)
        if names:
            return names[0]
        if value in self.common:
            return self.common[value]
        return fallback if fallback not in self.reserved else "x"

    def _numbered(self, name: str) -> str:
        number = 2
        while f"{name}_{number}" in self.names.values():
            number += 1
        return f"{name}_{number}"
