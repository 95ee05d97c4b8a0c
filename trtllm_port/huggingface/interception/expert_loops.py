"""Loops over a list of experts, written where a block chooses them, as a call of what holds the list.

    y = torch.zeros_like(x)
    for i, expert in enumerate(self.experts):
        chosen = topk_idx == i
        …
        y.index_add_(0, tokens, expert(x[tokens]) * topk_weight[chosen].view(-1, 1))

Which experts the loop asks depends on the data. The block's `forward` is compiled anew with the same lines, but for the
loop: that becomes a function of states, indices and weights, and of what it needs that follows from them.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_EXPERTS, _ZEROS, _TELL = "experts", "__zeros__", "__tell__"
_SHAPES = ((1, 5), (2, 7))  # of two runs: what is equal in both is no number of tokens
_TOLERANCE = 1e-5  # relative, in float32


class Loop(NamedTuple):
    """A loop as a function of its own.

    Attributes:
        method: of the block: states, indices, weights → what the loop adds up; it takes experts from the block.
        forward: the block's, which calls `self.experts` in place of the loop.
    """

    method: MethodType
    forward: MethodType


class _Source(NamedTuple):
    definition: ast.FunctionDef
    file: str
    names: dict[str, Any]  # of its module

    def compiled(self, definition: ast.FunctionDef, **more: Any) -> FunctionType:
        """A function of that file."""
        names = {**self.names, **more}
        module = ast.fix_missing_locations(ast.Module([definition], []))
        exec(compile(module, self.file, "exec"), names)  # it is the model's own code, which runs anyway
        made: FunctionType = names[definition.name]
        return made


class _Roles(NamedTuple):
    """The variables of `forward` that are what the loop works on."""

    states: str
    indices: str
    weights: str
    total: str


def loop_over_experts(block: nn.Module, width: int) -> Loop | None:
    """The loop over `block.experts` in the block's `forward`; None if there is none that is understood.

    Args:
        block: has a list of experts.
        width: elements of a token's states.
    """
    source = _source(type(block).forward)
    loop = None if source is None else _loop_in(source.definition)
    total = None if loop is None else _total(loop)
    if source is None or loop is None or total is None:
        return None
    trial = copy.deepcopy(block).float().eval()
    with suppress(Exception), torch.no_grad():  # any: it is the model's code that runs here
        runs = [_run_up_to(loop, source, trial, shape, width) for shape in _SHAPES]
        found = _needed(loop, _before(source.definition, loop), runs, total, width)
        if found is None:
            return None
        statements, roles, constants = found
        method = source.compiled(_function(loop, statements, roles), **constants, **{_ZEROS: torch.zeros_like})
        forward = source.compiled(_replaced(source.definition, loop, _call(roles, loop)))
        expected = [trial(_states(shape, width)) for shape in _SHAPES]
        trial.experts = _Computing(trial.experts, MethodType(method, trial))
        again = [MethodType(forward, trial)(_states(shape, width)) for shape in _SHAPES]
        if all(map(_alike, again, expected)):
            return Loop(MethodType(method, block), MethodType(forward, block))
    return None


class _Computing(nn.ModuleList):
    """A list of experts that computes what a loop over it does."""

    def __init__(self, experts: Any, method: MethodType) -> None:
        super().__init__(experts)
        self.method = method

    def forward(self, *given: Tensor) -> Any:
        return self.method(*given)


def _source(function: Any) -> _Source | None:
    """Where a method comes from; None if that cannot be compiled by itself."""
    if not inspect.isfunction(function) or function.__code__.co_freevars:  # `super()` among them
        return None
    with suppress(OSError, SyntaxError):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition = tree.body[0]
        if isinstance(definition, ast.FunctionDef):
            definition.decorator_list = []
            ast.increment_lineno(definition, function.__code__.co_firstlineno - 1)
            return _Source(definition, function.__code__.co_filename, function.__globals__)
    return None


def _loop_in(definition: ast.FunctionDef) -> ast.For | None:
    """The one loop that asks experts, with those within it."""
    loops = [node for node in ast.walk(definition) if isinstance(node, ast.For) and _asks(node)]
    within = set(ast.walk(loops[0])) if loops else set()
    return loops[0] if loops and within.issuperset(loops) else None


def _asks(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Attribute) and part.attr == _EXPERTS and ast.unparse(part.value) == "self"
        for part in ast.walk(node)
    )


def _total(loop: ast.For) -> str | None:
    """The variable that the loop adds to."""
    found = set[str]()
    for node in ast.walk(loop):
        target: ast.expr | None = None
        if isinstance(node, ast.AugAssign):
            target = node.target
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("_"):
            target = node.func.value
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            found.add(target.id)
    return found.pop() if len(found) == 1 else None


def _states(shape: tuple[int, int], width: int) -> Tensor:
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(0))


def _run_up_to(loop: ast.For, source: _Source, block: nn.Module, shape: tuple[int, int], width: int) -> dict[str, Any]:
    """The local variables of the block's `forward` where the loop begins."""
    tell = ast.parse(f"return {_TELL}(locals())").body
    seen: dict[str, Any] = {}
    source.compiled(_replaced(source.definition, loop, tell), **{_TELL: seen.update})(block, _states(shape, width))
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in seen.items()}


def _before(definition: ast.FunctionDef, loop: ast.For) -> list[ast.stmt]:
    """The statements before a loop, among those that it is one of."""
    for node in ast.walk(definition):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list) and loop in body:
                return body[: body.index(loop)]
    return []


def _needed(
    loop: ast.For, before: list[ast.stmt], runs: list[dict[str, Any]], total: str, width: int
) -> tuple[list[ast.stmt], _Roles, dict[str, Any]] | None:
    """The statements that the loop needs before it, what it works on, and the variables that are always the same."""
    kinds = {name: _kind(name, runs, width) for name in runs[0].keys() & runs[1].keys() if name != total}
    if _kind(total, runs, width) != "states" or any(bool(run[total].any()) for run in runs):
        return None
    constants = {name: value for name, value in runs[0].items() if _is_same(value, runs[1].get(name))}
    known = {name for name, kind in kinds.items() if kind} | constants.keys() | {"self"}
    wanted = _loaded(loop) - {total}
    statements: list[ast.stmt] = []
    for statement in reversed(before):
        if isinstance(statement, ast.Assign) and (wanted - known) & _stored(statement):
            statements.insert(0, statement)
            wanted = (wanted - _stored(statement)) | _loaded(statement)
    given = {name: kind for name in sorted(wanted) if (kind := kinds.get(name))}
    others = wanted - given.keys() - known
    if sorted(given.values()) != ["indices", "states", "weights"] or others & runs[0].keys():
        return None
    by_kind = {kind: name for name, kind in given.items()}
    return statements, _Roles(by_kind["states"], by_kind["indices"], by_kind["weights"], total), constants


def _is_same(value: Any, other: Any) -> bool:
    """Whether a variable is a plain value, and the same in two runs."""
    return isinstance(value, int | float | str | torch.dtype | torch.device | None) and value == other


def _kind(name: str, runs: list[dict[str, Any]], width: int) -> str | None:
    """What a variable is by its shape, in both runs; None for any other."""
    found = {_kind_in(run[name], shape[0] * shape[1], width) for run, shape in zip(runs, _SHAPES, strict=True)}
    return found.pop() if len(found) == 1 else None


def _kind_in(value: Any, tokens: int, width: int) -> str | None:
    if not isinstance(value, Tensor) or value.ndim != 2 or len(value) != tokens:
        return None
    if value.dtype == torch.int64:
        return "indices"
    if value.is_floating_point():
        return "states" if value.shape[1] == width else "weights"
    return None


def _names(node: ast.AST, kind: type[ast.expr_context]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, kind):
            yield part.id


def _loaded(node: ast.AST) -> set[str]:
    """Variables that a statement reads; those that it sets itself are no others'."""
    own = set(_names(node, ast.Store)) if isinstance(node, ast.For) else set[str]()
    return set(_names(node, ast.Load)) - own


def _stored(node: ast.AST) -> set[str]:
    return set(_names(node, ast.Store))


def _function(loop: ast.For, statements: list[ast.stmt], roles: _Roles) -> ast.FunctionDef:
    text = f"def of_experts(self, {roles.states}, {roles.indices}, {roles.weights}):\n"
    text += f"    {roles.total} = {_ZEROS}({roles.states})\n    return {roles.total}"
    definition = ast.parse(text).body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.body[1:1] = copy.deepcopy([*statements, loop])
    return definition


def _call(roles: _Roles, loop: ast.For) -> list[ast.stmt]:
    made = ast.parse(f"{roles.total} = self.experts({roles.states}, {roles.indices}, {roles.weights})").body
    return [ast.increment_lineno(statement, loop.lineno - 1) for statement in made]


def _replaced(definition: ast.FunctionDef, loop: ast.For, by: list[ast.stmt]) -> ast.FunctionDef:
    """A function with other statements in place of a loop."""

    class Replacing(ast.NodeTransformer):
        def visit_For(self, node: ast.For) -> Any:
            return by if node.lineno == loop.lineno else self.generic_visit(node)

    changed: ast.FunctionDef = Replacing().visit(copy.deepcopy(definition))
    return changed


def _alike(found: Any, expected: Any) -> bool:
    first, second = (output[0] if isinstance(output, tuple) else output for output in (found, expected))
    return isinstance(first, Tensor) and torch.allclose(first, second, rtol=_TOLERANCE, atol=_TOLERANCE)
