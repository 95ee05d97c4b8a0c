"""Sizes that a class uses again and again get the name that Hugging Face's class has for them.

`self.head_dim = config.head_dim` once, and `self.head_dim` after that: where it makes the class shorter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trtllm_port.codegen.ir.expressions import Values
from trtllm_port.codegen.ir.formatting import WIDTH
from trtllm_port.codegen.solve.operators import FUNCTIONS
from trtllm_port.codegen.write.scope import Scope

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//"}
_KEPT = ("config", "layer_idx")  # what `__init__` keeps for `forward`
_BROKEN = 3  # lines of a statement that does not fit into one


@dataclass(frozen=True)
class _Use:
    """An expression in the text of a class: its text in `__init__`, the name for it, and where it is.

    Attributes:
        sure: it is evaluated whatever the config says.
    """

    text: str
    name: str
    line: int
    start: int
    stop: int
    sure: bool


@dataclass(frozen=True)
class _Text:
    """The methods of a class as statements, one a line."""

    init: list[str]
    forward: list[str]

    @property
    def size(self) -> tuple[int, int]:
        """About how many lines this is when formatted, and how many characters."""
        lengths = [len(line) for line in (*self.init, *self.forward)]
        return sum(1 if length + 4 <= WIDTH else _BROKEN for length in lengths), sum(lengths)


class SubexpressionNames:
    """Names the sizes of one class.

    Args:
        scope: of the class; its attributes are settled.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.columns = _sizes(scope.symbols) if scope.from_config else {}
        self.order = list(_sizes(scope.found_attributes))
        self.names: dict[Values, list[str]] = {}
        for name in self.order:
            self.names.setdefault(scope.found_attributes[name], []).append(name)

    def write(self, init: list[str], forward: list[str]) -> tuple[list[str], list[str]]:
        """Both methods, with those names that make them shorter; each statement is one line, the first the `def`."""
        best = _Text(init, forward)
        uses = list(self._uses(best)) if self.columns and self.names else []
        defined = {name: found.text for name, found in self.scope.attributes.items()}
        new: dict[str, str] = {}
        for name in self.order:
            texts = [use for use in uses if use.name == name]
            plain = min((use.text for use in texts if use.sure), key=len, default=None)
            if name not in defined and plain is not None and len(texts) > 1:
                new[name] = plain
        chosen = tuple(name for name in self.order if name in new or name in defined)
        found = self._with(best, chosen, new)
        while chosen:
            fewer = [tuple(name for name in chosen if name != other) for other in chosen]
            texts_of = {names: self._with(best, names, new) for names in fewer}
            names = min(texts_of, key=lambda one: texts_of[one].size)
            if texts_of[names].size > found.size:
                break
            chosen, found = names, texts_of[names]
        best = min(best, found, key=lambda text: text.size)
        return best.init, best.forward

    def _with(self, text: _Text, chosen: tuple[str, ...], new: Mapping[str, str]) -> _Text:
        """The text with some of the names."""
        init = list(text.init)
        for name in chosen:
            if name in new:
                init.insert(self._place(init, name), f"    self.{name} = {new[name]}")
        set_at = {name: self._line(init, name) for name in chosen}
        lines = [*init, *text.forward]
        uses = [use for use in self._uses(_Text(init, text.forward)) if use.name in set_at]
        for use in reversed([use for use in uses if use.line > set_at[use.name]]):
            line = lines[use.line]
            before, behind = line[: use.start], line[use.stop :]
            if before.endswith("(") and behind.startswith(")") and not before[-2:-1].isidentifier():
                before, behind = before[:-1], behind[1:]
            lines[use.line] = f"{before}self.{use.name}{behind}"
        init, forward = lines[: len(init)], lines[len(init) :]
        for name in _KEPT:
            if not any(f"self.{name}" in line for line in forward):
                init = [line for line in init if line != f"    self.{name} = {name}"]
        return _Text(init, forward)

    def _place(self, init: list[str], name: str) -> int:
        """The line before which an attribute is set: in HF's order among the others, which come first."""
        own = [number for other in self.order if (number := self._line(init, other, 0))]
        later = self.order[self.order.index(name) :]
        behind = [number for other in later if (number := self._line(init, other, 0))]
        heads = ("    super().", *(f"    self.{kept} = {kept}" for kept in _KEPT))
        first = max(number for number, line in enumerate(init) if line.startswith(heads)) + 1
        return min(behind) if behind else max((first, *(number + 1 for number in own)))

    def _line(self, init: list[str], name: str, missing: int = -1) -> int:
        start = f"    self.{name} = "
        return next((number for number, line in enumerate(init) if line.startswith(start)), missing)

    # what there is

    def _uses(self, text: _Text) -> Iterator[_Use]:
        """The largest expressions in a text that have a name, in order."""
        lines = [*text.init, *text.forward]
        init, forward = ast.parse("\n".join(lines)).body
        found = [*self._in(init, lines, own=True, sure=True), *self._in(forward, lines, own=False, sure=True)]
        yield from sorted(found, key=lambda use: (use.line, use.start))

    def _in(self, node: ast.AST, lines: list[str], *, own: bool, sure: bool) -> Iterator[_Use]:
        """Those in a part of the text; `own`: `layer_idx` is the argument of `__init__` there."""
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.For):
            own = False
        if isinstance(node, ast.If | ast.IfExp | ast.BoolOp):
            sure = False
        use = (
            self._use(node, lines, own=own, sure=sure)
            if isinstance(node, ast.Attribute | ast.Subscript | ast.BinOp)
            else None
        )
        if use is not None:
            yield use
            return
        for child in ast.iter_child_nodes(node):
            yield from self._in(child, lines, own=own, sure=sure)

    def _use(self, node: ast.expr, lines: list[str], *, own: bool, sure: bool) -> _Use | None:
        assert node.end_col_offset is not None  # of what was parsed
        if node.lineno != node.end_lineno:
            return None
        segment = lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode()
        text = segment.replace("self.config", "config").replace("self.layer_idx", "layer_idx")
        if "layer_idx" in segment.replace("self.layer_idx", "") and not own:
            return None
        column = self._column(text, ast.parse(text, mode="eval").body)
        names = self.names.get(column, []) if column is not None else []
        if not names:
            return None
        name = next((name for name in names if text == f"config.{name}"), names[0])
        plain = isinstance(node, ast.Attribute)  # reading it cannot fail
        return _Use(text, name, node.lineno - 1, node.col_offset, node.end_col_offset, sure or plain)

    def _column(self, text: str, node: ast.expr) -> Values | None:
        """What an expression over the config is in every instance."""
        known = self.columns.get(text[node.col_offset : node.end_col_offset])
        if known is not None:
            return known
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return (node.value,) * len(self.scope.instances)
        symbol = _OPERATORS.get(type(node.op)) if isinstance(node, ast.BinOp) else None
        if not isinstance(node, ast.BinOp) or symbol is None:
            return None
        left, right = self._column(text, node.left), self._column(text, node.right)
        if left is None or right is None or (symbol == "//" and 0 in right):
            return None
        return tuple(int(FUNCTIONS[symbol](a, b)) for a, b in zip(left, right, strict=True))


def _sizes(columns: Mapping[str, Values]) -> dict[str, Values]:
    """Those columns that are whole numbers, which differ."""
    whole = {text: column for text, column in columns.items() if all(type(value) is int for value in column)}
    return {text: column for text, column in whole.items() if len(set(column)) > 1}
