"""Sizes of a sub-module that is one thing or another, as they are whichever it is.

An option of the config is traced at a few sizes only, and many expressions fit two sizes. What Hugging Face's module is
made of stays the same under most options, so the size is compared where the module is computed in another way, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trtllm_port.codegen.ir.expressions import CONDITION, MISSING, SymbolicValue, Values
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.codegen.write.scope import Scope


def complete_size(value: Any, path: str, scope: Scope) -> Any:
    """A size of a sub-module with its values in all instances, where one expression gives them; else as it is.

    Args:
        value: a symbolic value may lack some: of instances that have something else in this place.
        path: of the sub-module.
        scope: of the class around it.
    """
    if not isinstance(value, SymbolicValue) or MISSING not in value.values or not scope.from_config:
        return value
    solver = Solver({**scope.symbols, **{f"self.{name}": found.values for name, found in scope.attributes.items()}})
    for column in _completions(value.values, path, scope):
        found = solver.solve(column)
        if found is not None and found.precedence > CONDITION:
            return SymbolicValue(column)
    return value


def _completions(values: Values, path: str, scope: Scope) -> Iterator[Values]:
    """What numbers that HF's modules were made with, or keep, are everywhere; those that are `values` where that is."""
    if path.endswith("]"):
        return
    tables: list[dict[str, Any]] = []
    kinds = set()
    for instance in scope.instances:
        try:
            module = instance.block.module.get_submodule(path)
        except AttributeError:  # it has nothing there
            return
        kinds.add(type(module))
        tables.append({**vars(module), **instance.trace.made_with.get(module, {})})
    for name in tables[0] if len(kinds) == 1 else ():
        column = tuple(table.get(name) for table in tables)
        whole = all(type(number) is int for number in column)
        if whole and all(own in (MISSING, number) for own, number in zip(values, column, strict=True)):
            yield column
