"""Nodes as Python expressions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, count
from typing import Any

from trtllm_port.codegen.ir.dtypes import MODEL_DTYPE
from trtllm_port.codegen.ir.expressions import (
    ATOM,
    MISSING,
    POWER,
    PRODUCT,
    SUM,
    UNARY,
    Bfloat16,
    Expression,
    SymbolicValue,
    power_text,
)
from trtllm_port.codegen.ir.formatting import reference
from trtllm_port.codegen.ir.nodes import Node
from trtllm_port.codegen.ir.record import Attribute, Literal, Value
from trtllm_port.codegen.ir.structure import relative_path
from trtllm_port.codegen.lower.parallel_calls import PARTS
from trtllm_port.codegen.lower.shared_caches import NO_KINDS
from trtllm_port.codegen.solve.not_expressible import NotExpressible, SometimesComputed
from trtllm_port.codegen.solve.symbols import field_values
from trtllm_port.codegen.write.scope import RoundScope, Scope
from trtllm_port.foundation.quoting import literal

COMPARISON, BIT_OR, BIT_AND = 30, 40, 50
OPERATORS = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), COMPARISON),
    **{"|": BIT_OR, "&": BIT_AND, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "@": PRODUCT},
    "**": POWER,
}
INPUT_DTYPE = "input_dtype"


class Untranslated(Exception):
    """A node that cannot be printed; says which operation, and where HF has it."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(f"{reason} ({node.location})" if node.location else reason)
        self.node = node
        self.reason = reason


class Printer:
    """Prints the nodes of one class.

    Args:
        scope: gives expressions for numbers.
        reference: gives the expression of a tensor: a name, or the text of the node that makes it.
    """

    def __init__(self, scope: Scope, reference: Callable[[Value], Expression]) -> None:
        self.scope: Scope | RoundScope = scope
        self.of_class = scope
        self.reference = reference
        self.functions: set[str] = set()  # of `trtllm_port.layers`
        self.parameters: dict[str, Attribute] = {}  # used directly
        self.inputs: list[str] = []  # names of what `forward` takes
        self.sizes: dict[str, str] = {}  # sizes that `forward` asks its inputs for, by name
        self.casts_back = False  # to the port's own data type, which is that of the class's inputs

    def expression(self, node: Node) -> Expression:
        """The text of a node's value.

        Raises:
            Untranslated: there is no such operation in `trtllm_port.layers`.
            NotExpressible: a number follows from nothing in the config.
        """
        printer = getattr(self, f"_{node.form}", None)
        if printer is None:
            raise Untranslated(node, f"no translation of `{node.name}`")
        made: Expression = printer(node)
        return made

    # arguments

    def argument(self, arg: Any, node: Node) -> Expression:
        """One argument, a tensor or a Python value."""
        if isinstance(arg, Value):
            return self.reference(arg)
        if isinstance(arg, Attribute):
            return self._parameter(arg, node)
        if isinstance(arg, Literal):
            raise Untranslated(node, f"`{node.name}` takes a constant tensor of shape {tuple(arg.tensor.shape)}")
        if isinstance(arg, tuple | list):
            texts = [self.argument(item, node).text for item in arg]
            return _atom(self._whole_list(texts) or f"[{', '.join(texts)}]")
        if isinstance(arg, slice):
            return _atom(self._slice(arg, node))
        if arg is Ellipsis:
            return _atom("...")
        if isinstance(arg, dict):  # that of the config, though its entries were the same in all traces
            arg = SymbolicValue((arg,) * len(self.of_class.instances))
        if self.scope.run_time_size(arg) is not None:
            raise Untranslated(node, f"`{node.name}` depends on the number of tokens")
        limited = self.scope.limited(arg)
        if limited is not None and "cache" in self.inputs:
            return _atom(f"min({limited.text}, cache.max_seq_len)")
        if not isinstance(arg, SymbolicValue | int | float | str | bool | None):
            raise Untranslated(node, f"`{node.name}` takes a {type(arg).__name__}")
        found = self.scope.in_forward(arg, f"a number of `{node.name}`")
        if all(isinstance(value, Bfloat16) for value in (arg.values if isinstance(arg, SymbolicValue) else (arg,))):
            self.functions.add("bfloat16")
            return _atom(f"bfloat16({found.text})")
        negative = isinstance(arg, int | float) and not isinstance(arg, bool) and arg < 0
        return Expression(found.text, found.values, UNARY, 0) if negative else found

    def _whole_list(self, texts: list[str]) -> str | None:
        """The list of the config that has these elements and no others."""
        name = texts[0].removesuffix("[0]") if texts else ""
        if texts != [f"{name}[{place}]" for place in range(len(texts))]:
            return None
        found = self.of_class.instances[0].trace.sample.values.get(name.removeprefix("self.config."))
        return name if isinstance(found, list) and len(found) == len(texts) else None

    def _parameter(self, attribute: Attribute, node: Node) -> Expression:
        path = relative_path(self.of_class.instances[0].block, attribute)
        if path is None or not attribute.persistent:
            raise Untranslated(node, f"`{node.name}` uses `{attribute.path}`")
        self.parameters[path] = attribute
        return _atom(reference(path))

    def _arguments(self, node: Node, args: tuple[Any, ...]) -> str:
        positional = [self.argument(arg, node).text for arg in args]
        named = [
            f"{key}={self.argument(value, node).text}" for key, value in node.keywords.items() if value is not None
        ]
        return ", ".join(positional + named)

    def _slice(self, part: slice, node: Node) -> str:
        """`start:stop`, spaced as the formatter does: apart from anything but names and numbers."""
        bounds = [None if bound is None else self.argument(bound, node) for bound in (part.start, part.stop)]
        simple = all(b is None or b.text.lstrip("-").replace("_", "").isalnum() for b in bounds)
        before, after = ("" if bound is None else bound.text for bound in bounds)
        text = f"{before}:{after}" if simple else f"{before} : {after}".strip()
        return text if part.step is None else f"{text}:{self.argument(part.step, node).text}"

    # forms

    def _call(self, node: Node) -> Expression:
        if node.name.endswith(".*") and node.keywords:
            return self._parallel(node)
        name = "layer" if node.name.endswith(".*") else reference(node.name)
        return _atom(f"{name}({self._arguments(node, node.args)})")

    def _parallel(self, node: Node) -> Expression:
        """Each module of a list on its part of a tensor; see `join_parallel`."""
        size, dim = (self.argument(node.keywords[key], node).text for key in PARTS)
        modules = node.name.removesuffix(".*")
        one = modules.rpartition(".")[2].removesuffix("s") if modules.endswith("s") else "module"
        self.functions.add("concat")
        cut = f"{self.argument(node.args[0], node).inside(ATOM)}.split({size}, dim={dim})"
        return _atom(
            f"concat([{one}(part) for {one}, part in zip({reference(modules)}, {cut}, strict=True)], dim={dim})"
        )

    def _function(self, node: Node) -> Expression:
        self.functions.add(node.name)
        return _atom(f"{node.name}({self._arguments(node, node.args)})")

    def _nothing(self, node: Node) -> Expression:
        return _atom(node.name)

    def _attribute(self, node: Node) -> Expression:
        return self._parameter(node.args[0], node)

    def _alias(self, node: Node) -> Expression:
        return self.argument(node.args[0], node)

    def _cache(self, node: Node) -> Expression:
        cache, layer, *rest = node.args
        instances = self.scope.instances if isinstance(self.scope, Scope) else ()
        numbers = layer.values if isinstance(layer, SymbolicValue) else (layer,) * len(instances)
        own = bool(instances) and all(one.layer_idx == n for one, n in zip(instances, numbers, strict=True))
        number = "self.layer_idx" if own else self.argument(layer, node).text
        others = self._kinds(node) if node.name == "shared" else [self._arguments(node, tuple(rest))]
        return _atom(f"{self.argument(cache, node).text}.{node.name}({', '.join(filter(None, [number, *others]))})")

    def _kinds(self, node: Node) -> list[str]:
        """The list in the config that says which layers are of one kind, if there are kinds."""
        given = node.keywords["kinds"]
        columns = [
            keys for keys in (given.values if isinstance(given, SymbolicValue) else (given,)) if keys is not MISSING
        ]
        keys = frozenset.intersection(*columns)
        if NO_KINDS in keys:
            return []
        key = next((key for key in field_values(self.of_class.instances[0].trace.sample.values) if key in keys), None)
        if key is None:
            raise Untranslated(node, "a layer takes the keys and values of a layer that no list in the config tells")
        self.of_class.fields.add(key)
        return [f"self.config.{key}"]

    def _method(self, node: Node) -> Expression:
        target = self.argument(node.args[0], node).inside(ATOM)
        if node.name == "repeat" and _only_ones(node):
            node = replace(node, name="expand", args=node.args[:2])
        if node.name == "repeat":
            return _atom(f"{target}.repeat({self._arguments(node, node.args[2])})")
        if node.name in ("view", "expand"):
            return _atom(f"{target}.{node.name}({', '.join(self._dims(node))})")
        rest = self._arguments(node, node.args[1:])
        return _atom(f"{target}.{node.name}({rest})")

    def _cast(self, node: Node) -> Expression:
        target = self.argument(node.args[0], node).inside(ATOM)
        if node.name == "float32":
            return _atom(f"{target}.float()")
        if node.name == MODEL_DTYPE:
            self.casts_back = True
            return _atom(f"{target}.to({INPUT_DTYPE})")
        return _atom(f"{target}.to({literal(node.name)})")

    def _index(self, node: Node) -> Expression:
        target = self.argument(node.args[0], node).inside(ATOM)
        return _atom(f"{target}[{', '.join(self.argument(item, node).text for item in node.args[1])}]")

    def _operator(self, node: Node) -> Expression:
        operands = [self.argument(arg, node) for arg in node.args]
        if len(operands) == 1:
            return Expression(f"{node.name}{operands[0].inside(UNARY)}", (), UNARY, 0)
        left, right = operands
        precedence = OPERATORS[node.name]
        if node.name == "**":
            return Expression(power_text(left, right.inside(POWER)), (), POWER, 0)
        return Expression(f"{left.inside(precedence)} {node.name} {right.inside(precedence + 1)}", (), precedence, 0)

    # shapes

    def _dims(self, node: Node) -> list[str]:
        """The sizes of `view` (0 copies the input's size there, -1 is the rest) and of `expand` (-1 keeps)."""
        sizes = node.args[1]
        same = [i < len(node.shapes) and node.shapes[i] == size for i, size in enumerate(sizes)]
        dynamic = [self.scope.run_time_size(size) is not None for size in sizes]
        moved = [i for i in range(len(sizes)) if dynamic[i] and not same[i]]
        rest = node.keywords.get("inferred")
        if node.name == "view" and moved:  # what only TensorRT knows cannot be written; HF's -1 can
            rest = moved[0]
        texts: list[str] = []
        for i, size in enumerate(sizes):
            if i == rest:
                texts.append("-1")
            elif same[i] and (dynamic[i] or node.name == "expand"):
                texts.append("0" if node.name == "view" else "-1")
            elif dynamic[i]:
                texts.append(self._run_time_size(size, node))
            else:
                texts.append(self._static_size(size, node))
        return texts

    def _static_size(self, size: Any, node: Node) -> str:
        """A size as the config gives it, or as it is in what `forward` is given."""
        try:
            return self.scope.in_forward(size, f"a size of `{node.name}`").text
        except NotExpressible:
            place = self.of_class.input_dimension(size.values)
            if place is None:
                raise
        name, dim = self.inputs[place[0]], place[1]
        still = self.of_class.inputs(self.of_class.port_class.block.keys[place[0]])[0]
        with suppress(SometimesComputed):  # the name stands for something else by now
            if still is not None and self.reference(still).text == name:
                return f"{name}.shape[{dim}]"
        text = f"{name}.shape[{dim}]"
        variables = chain(["size"], (f"size_{number}" for number in count(2)))
        variable = next(own for own in variables if self.sizes.get(own, text) == text)
        self.sizes[variable] = text
        return variable

    def _run_time_size(self, size: SymbolicValue, node: Node) -> str:
        """The name of a size that `forward` asks its inputs for at its beginning; slots of the cache are static."""
        name = self.scope.run_time_size(size)
        assert name is not None  # of a size that is dynamic
        place = self.of_class.input_dimension(next(v for v, own in self.of_class.run_time_sizes.items() if own == name))
        if name == "num_slots" and "cache" in self.inputs:
            return "cache.max_seq_len"
        if place is None:
            raise Untranslated(node, f"`{node.name}` to a size that depends on the number of tokens")
        self.functions.add("shape")
        self.sizes[name] = f"shape({self.inputs[place[0]]}, {place[1]})"
        return name


def _only_ones(node: Node) -> bool:
    """Whether a `repeat` is an `expand`: all dimensions that it repeats have the size 1."""
    return all(repeats == 1 or size == 1 for size, repeats in zip(node.shapes, node.args[2], strict=True))


def _atom(text: str) -> Expression:
    return Expression(text, (), ATOM, 0)
