"""What a traced model computes, as text: a line for each operation of each class.

Code that computes the same has the same text. A value is called after what computes it, and operations stand in the
order in which the results need them: names of local variables, the order of independent statements and lines of files
do not show. Names of classes are comments, which stand behind `#`.

    model.layers.*.mlp:  # LlamaMLP
        gate_proj = self.gate_proj(x1): Linear(64, 88, bias=False)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from trtllm_port.codegen.ir.module_paths import layer_number, of_any_layer
from trtllm_port.codegen.ir.nodes import Block, Leaf, Node, values_in
from trtllm_port.codegen.ir.record import Attribute, Literal, Value
from trtllm_port.codegen.ir.structure import relative_path

COMMENT = "  # "
INDENT = "    "
OF_PRINTING = ("inferred",)
"""Keywords of nodes that say how the port is printed."""
SYMBOLS = {
    **{"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "**": "pow", "@": "matmul"},
    **{"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne", "&": "and", "|": "or", "~": "not"},
}
FEW = 8
"""Numbers of a constant are all told up to so many."""
MOST = 1e9
"""A constant's numbers beyond it count as this one: masks hide with infinity, or with the largest number of a type."""
Content = Callable[[str], torch.Tensor]


def operation_sections(root: Block, content: Content) -> dict[str, list[str]]:
    """The text of a model, by sections: a module's name (and its layers, where they differ) → lines.

    Args:
        root: the model's block.
        content: of a buffer of the model, by its full name.
    """
    texts = _Texts(content)
    texts.of(root)
    sections = {}
    for path, variants in texts.variants.items():
        for lines, (classes, layers) in variants.items():
            alone = len(variants) == 1 or not any(number is not None for number in layers)
            at = "" if alone else f" of {', '.join(str(number) for number in layers)}"
            sections[f"{path or 'the model'}{at}:{COMMENT}{', '.join(sorted(classes))}"] = list(lines)
    return sections


@dataclass(eq=False)
class _Texts:
    """Texts of the blocks of a model.

    Attributes:
        variants: a module's name with its layer left open → lines → names of classes, numbers of layers.
        orders: block → which of its inputs are used, in the order of the text.
    """

    content: Content
    variants: dict[str, dict[tuple[str, ...], tuple[set[str], list[int | None]]]] = field(default_factory=dict)
    orders: dict[Block, list[int]] = field(default_factory=dict)

    def of(self, block: Block) -> list[int]:
        """Write a block's section, and those of what it calls; returns the order of its inputs."""
        if block not in self.orders:
            variants = self.variants.setdefault(of_any_layer(block.path), {})
            text = _BlockText(self, block)
            lines = tuple(text.lines())
            classes, layers = variants.setdefault(lines, (set(), []))
            classes.add(block.class_name)
            layers.append(layer_number(block.path))
            self.orders[block] = text.used
        return self.orders[block]


class _BlockText:
    """The lines of one block.

    Args:
        inputs: what the inputs are called, where that is settled; each is called when it is first used otherwise.
    """

    def __init__(self, texts: _Texts, block: Block, inputs: dict[Value, str] | None = None) -> None:
        self.texts, self.block = texts, block
        self.names: dict[Value, str] = dict(inputs or {})
        self.given = {value: place for place, value in enumerate(block.inputs)}
        self.used: list[int] = []
        self.counts: Counter[str] = Counter()
        self.producers = {value: node for node in block.nodes for value in node.outputs}

    def lines(self) -> Iterator[str]:
        done: set[int] = set()
        for value in values_in(self.block.outputs):
            if value in self.producers:
                yield from self._with_needs(self.producers[value], done)
        for node in self.block.nodes:  # what is done for its effect on the cache
            yield from self._with_needs(node, done)
        yield f"return {self._text(self.block.outputs)}"

    def _with_needs(self, node: Node, done: set[int]) -> Iterator[str]:
        """The lines of a node, behind those of what it takes."""
        waiting = [node]
        while waiting:
            last = waiting[-1]
            needs = [self.producers[v] for v in self._taken(last) if v in self.producers]
            missing = [need for need in needs if id(need) not in done and need not in waiting]
            if id(last) in done:
                waiting.pop()
            elif missing:
                waiting.append(missing[0])
            else:
                done.add(id(waiting.pop()))
                yield from self._node(last)

    def _taken(self, node: Node) -> list[Value]:
        keywords = [node.keywords[key] for key in sorted(node.keywords)]
        return [*values_in(self._arguments(node)), *values_in(keywords)]

    def _arguments(self, node: Node) -> tuple[Any, ...]:
        """The arguments of a node; of a call those that the module uses, in the order of its section."""
        inner = node.block
        if inner is None or inner.leaf is not None or len(node.args) != len(inner.inputs):
            return node.args
        return tuple(node.args[place] for place in self.texts.of(inner))

    def _node(self, node: Node) -> Iterator[str]:
        args = self._arguments(node)
        if node.form == "cache" and len(args) > 1 and args[1] == layer_number(self.block.path):
            args = (args[0], "this layer", *args[2:])
        if node.form == "loop":
            yield from self._loop(node)
            return
        text = self._expression(node, [self._text(arg) for arg in args])
        yield f"{self._results(node)} = {text}" if node.outputs else text

    def _expression(self, node: Node, args: list[str]) -> str:
        named = [f"{k}={self._text(node.keywords[k])}" for k in sorted(node.keywords) if k not in OF_PRINTING]
        if node.form == "operator" and len(args) == 2 and not named:
            return f"{args[0]} {node.name} {args[1]}"
        called = {"call": f"self.{of_any_layer('.' + node.name)[1:]}", "cache": f"cache.{node.name}"}
        name = called.get(node.form, node.name or node.form)
        leaf = node.block.leaf if node.block is not None else None
        return f"{name}({', '.join([*args, *named])})" + ("" if leaf is None else f": {self._leaf(leaf)}")

    def _leaf(self, leaf: Leaf) -> str:
        options = [f"{key}={self._text(leaf.keywords[key])}" for key in sorted(leaf.keywords)]
        return f"{leaf.kind}({', '.join([*map(self._text, leaf.args), *options])})"

    def _loop(self, node: Node) -> Iterator[str]:
        """A loop over layers, with what a round computes; rounds that compute the same stand together."""
        args = [self._text(arg) for arg in node.args]
        roles = [f"{role} {arg}" for role, arg in zip(node.roles, args, strict=True)]
        yield f"{self._results(node)} = loop {node.name}, {len(node.rounds)} rounds ({', '.join(roles)})"
        rounds: dict[tuple[str, ...], list[int]] = {}
        for number, one in enumerate(node.rounds):
            inputs = {value: f"r{place + 1}" for place, value in enumerate(one.inputs)}
            rounds.setdefault(tuple(_BlockText(self.texts, one, inputs).lines()), []).append(number)
        for lines, numbers in rounds.items():
            if len(rounds) > 1:
                yield f"{INDENT}in rounds {', '.join(map(str, numbers))}"
            yield from (INDENT + line for line in lines)

    def _results(self, node: Node) -> str:
        """Name what a node gives."""
        plain = SYMBOLS.get(node.name) or re.sub(r"\W+", "_", of_any_layer("." + node.name)[1:]).strip("_") or node.form
        self.counts[plain] += 1
        name = plain if self.counts[plain] == 1 else f"{plain}_{self.counts[plain]}"
        several = len(node.outputs) > 1
        for number, value in enumerate(node.outputs):
            self.names.setdefault(value, f"{name}.{number}" if several else name)
        return ", ".join(self.names[value] for value in node.outputs)

    def _text(self, tree: Any) -> str:
        """Arguments as text."""
        if isinstance(tree, Value):
            return self._name(tree)
        if isinstance(tree, Attribute):
            own = relative_path(self.block, tree)
            named = of_any_layer(f".{tree.path}")[1:] if own is None else f"self.{own}"
            return named if tree.persistent else f"{named} {_summary(self.texts.content(tree.path))}"
        if isinstance(tree, Literal | torch.Tensor):
            return _summary(tree.tensor if isinstance(tree, Literal) else tree)
        if isinstance(tree, tuple | list):
            return f"({', '.join(map(self._text, tree))})"
        if isinstance(tree, dict):
            return f"{{{', '.join(f'{key}: {self._text(tree[key])}' for key in sorted(tree, key=str))}}}"
        if isinstance(tree, slice):
            return ":".join("" if part is None else self._text(part) for part in (tree.start, tree.stop, tree.step))
        if isinstance(tree, float):
            return f"{tree:.9g}"
        plain = isinstance(tree, int | str | None | torch.dtype)
        return str(tree) if plain else f"a {type(tree).__name__}"

    def _name(self, value: Value) -> str:
        if value not in self.names and value in self.given:
            self.used.append(self.given[value])
            self.names[value] = f"x{len(self.used)}"
        return self.names.get(value, "a value from elsewhere")


def _summary(tensor: torch.Tensor) -> str:
    """A constant's type, shape and content, to as many digits as other machines compute alike."""
    head = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
    numbers = tensor.detach().flatten().to(torch.float64)
    if numbers.numel() <= FEW:
        return f"<{head} {', '.join(f'{number:.5g}' for number in numbers.tolist())}>"
    finite = numbers.nan_to_num(posinf=MOST, neginf=-MOST).clamp(-MOST, MOST)
    weights = torch.linspace(1, 2, finite.numel(), dtype=torch.float64)
    return f"<{head} {float(finite.norm()):.5g} {float((finite * weights).sum()):.5g}>"
