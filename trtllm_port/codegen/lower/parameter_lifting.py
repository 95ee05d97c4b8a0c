"""Parameters that a module uses and a module around it holds: the outer one hands them over as arguments."""

from __future__ import annotations

from typing import Any

from torch import nn

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Attribute, Call, Value
from trtllm_port.codegen.ir.trees import map_structure


class LiftedParameters:
    """The blocks that are being made, outermost first, and what they hand over.

    Args:
        model: the traced model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.blocks: list[Block] = []
        self._tensors = model.state_dict(keep_vars=True)
        self._values: dict[tuple[Block, str], Value] = {}

    def tree(self, tree: Any) -> Any:
        """`tree` with the value in place of every attribute that the innermost block does not hold."""
        return map_structure(self._value, tree)

    def arguments(self, call: Call) -> dict[str, Any]:
        """The arguments of the innermost block's call, with what it is handed over and uses."""
        return {name: map_structure(self._known, arg) for name, arg in call.args.items()}

    def _value(self, leaf: Any) -> Any:
        owner = self._owner(leaf)
        if owner is None:
            return leaf
        key = owner, leaf.path
        if key not in self._values:
            value = self._values[key] = Value(self._tensors[leaf.path])
            owner.nodes.append(Node("attribute", "", (leaf,), {}, (value,)))
        return self._values[key]

    def _known(self, leaf: Any) -> Any:
        owner = self._owner(leaf)
        return leaf if owner is None else self._values.get((owner, leaf.path), leaf)

    def _owner(self, leaf: Any) -> Block | None:
        """The innermost block around that holds an attribute; None if it is the innermost of all, or none."""
        if not isinstance(leaf, Attribute) or not leaf.persistent:
            return None
        holders = [block for block in self.blocks if leaf.path.startswith(f"{block.path}." if block.path else "")]
        return holders[-1] if holders and holders[-1] is not self.blocks[-1] else None
