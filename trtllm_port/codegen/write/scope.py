"""What a class of the port may mention: config keys, its layer's number, its own arguments and attributes.

A class whose Hugging Face counterpart is made from a config is made from the port's config, `Class(config, layer_idx)`;
one that is made from sizes (`LlamaRMSNorm(hidden_size, eps)`) takes those of its sizes that it needs.
"""

from __future__ import annotations

import re
from functools import cached_property
from operator import gt
from typing import Any

from trtllm_port.codegen.ir.expressions import ATOM, MISSING, Expression, SymbolicValue, Values, merge_values
from trtllm_port.codegen.ir.nodes import Branch, Instance
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.merge.classes import PortClass
from trtllm_port.codegen.record.probing import named_activation
from trtllm_port.codegen.solve.not_expressible import NotExpressible, Undecided
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.codegen.solve.source_arithmetic import from_source, of_any_size, origins_of, same_arithmetic
from trtllm_port.codegen.solve.symbols import field_values, is_printable, symbols_of
from trtllm_port.foundation.quoting import is_name, literal

_PLAIN = 3  # the cost of an expression that needs no help
_NO_SIZES = frozenset(("training", "layer_idx"))  # attributes and arguments of HF's modules that are no sizes


class Scope:
    """Expressions for the values of one class, and what printing them asked for.

    Attributes:
        attributes: what `__init__` has to set because `forward` uses it, by name, with the expression.
        arguments: what `__init__` has to take beside `config` and `layer_idx`: name → value in each instance.
        fields: config keys that the class uses.
        deciding: those among them that conditions use.
        symbols: what expressions in `__init__` are made of: text → value in each instance.
        found_attributes: numbers and options that HF's class keeps: name → value in each instance.
    """

    def __init__(self, port_class: PortClass) -> None:
        self.port_class = port_class
        self.instances = port_class.instances
        self.attributes: dict[str, Expression] = {}
        self.arguments: dict[str, Values] = {}
        self.fields: set[str] = set()
        self.deciding: set[str] = set()
        self._over_attributes: dict[int, Solver] = {}  # by how many of HF's attributes
        self._over_own: dict[tuple[str, ...], Solver] = {}  # by the port's own attributes
        self._setting: list[str] = []  # attributes whose expressions are sought, outermost first
        made_with = [instance.trace.made_with.get(instance.block.module, {}) for instance in self.instances]
        self.from_config = "config" in made_with[0] or not made_with[0] or not self.instances[0].block.path
        self._made_with = made_with
        self._given = _columns([{**table, **_elements(table)} for table in made_with])
        every = symbols_of(self.instances)
        number = {name: values for name, values in every.items() if name == "layer_idx"}
        self.symbols = every if self.from_config else {**self._given, **number}
        self._solver = Solver(self.symbols)
        self.found_attributes = _columns([vars(instance.block.module) for instance in self.instances])

    def in_init(self, value: Any, what: str) -> Expression:
        """A value for `__init__`, over `config` and `layer_idx` (or the class's own arguments)."""
        if not isinstance(value, SymbolicValue):
            return Expression(literal(value), (), ATOM, 0)
        plain = self._solver.solve(value.values)
        if self.from_config and self._given and (plain is None or plain.cost > _PLAIN):
            given = self._with_given.solve(value.values)
            plain = given if given is not None and (plain is None or given.cost < plain.cost) else plain
        if self.attributes and (plain is None or plain.cost > 1):
            with_own = self._with_own().solve(value.values)
            plain = with_own if with_own is not None and (plain is None or with_own.cost < plain.cost) else plain
        plain = self._proven(plain, value.values) or self._through_attributes(value.values)
        if plain is None and self.from_config:
            plain = of_any_size(self.instances, value.values)
        if plain is None:
            raise NotExpressible(value.values, what)
        self._note(plain)
        return plain

    def _with_own(self) -> Solver:
        """Over the attributes that `__init__` sets so far, too."""
        names = tuple(self.attributes)
        if names not in self._over_own:
            own = {f"self.{name}": found.values for name, found in self.attributes.items()}
            self._over_own[names] = Solver({**self.symbols, **own})
        return self._over_own[names]

    def _through_attributes(self, values: Values) -> Expression | None:
        """Over attributes that HF's class sets, which `__init__` then sets; one attribute over those before it."""
        names = list(self.found_attributes)
        last = self._setting[-1] if self._setting else None
        before = names[: names.index(last)] if last in names else names
        if not before or not self.from_config:
            return None
        if len(before) not in self._over_attributes:
            symbols = {f"self.{name}": self.found_attributes[name] for name in before}
            self._over_attributes[len(before)] = Solver({**self.symbols, **symbols})
        found = self._over_attributes[len(before)].solve(values)
        return found if found is not None and self._set_attributes(found) else None

    def named(self, value: Any, path: str) -> str | None:
        """The set of parameters in the config that has the name by which the port holds a module, if that is it."""
        if not path.endswith("]"):
            return None
        column = value.values if isinstance(value, SymbolicValue) else (value,) * len(self.instances)
        ending = path[path.index("[") :]
        found = (text for text, values in self.symbols.items() if text.endswith(ending) and _same(column, values))
        text = next(found, None)
        self.fields.update(re.findall(r"\bconfig\.(\w+)", text or ""))
        return text

    def _proven(self, found: Expression | None, values: Values) -> Expression | None:
        """What fits, or HF's own arithmetic for the attribute that is being set, where what fits is not the same."""
        name = self._setting[-1] if self._setting else None
        if name is None or not self.from_config:
            return found
        tables = origins_of(self.instances)
        source = from_source(
            name, self.instances, values, {one: tables[0][one] for one in self.attributes if one in tables[0]}
        )
        if source is None or (
            found is not None and same_arithmetic(found.text, tables[0][name], tables[0]) is not False
        ):
            return found
        return source

    def activation(self, value: Any) -> Expression:
        """An activation as an argument: the config key that names it, or its name."""
        if not isinstance(value, SymbolicValue):
            return Expression(literal(value), (), ATOM, 0)
        for text, values in self.symbols.items():
            if all(isinstance(v, str) for v in values) and _same(value.values, tuple(map(named_activation, values))):
                found = Expression(text, values, ATOM, 1)
                self._note(found)
                return found
        raise NotExpressible(value.values, "an activation")

    def in_forward(self, value: Any, what: str) -> Expression:
        """A value for `forward`, over `self.config`, `self.layer_idx` and attributes that HF's class has."""
        if not isinstance(value, SymbolicValue):
            return Expression(literal(value), (), ATOM, 0)
        found = self._solver.solve(value.values)
        if found is not None and not self.from_config and found.text != "layer_idx":
            found = None  # arguments of `__init__` are not there any more
        if found is None or found.cost > 1:
            named = self._with_attributes.solve(value.values)
            if named is not None and (found is None or named.cost < found.cost) and self._set_attributes(named):
                found = named
        if found is None:
            raise NotExpressible(value.values, what)
        self._note(found)
        text = re.sub(r"(?<![.\w])(config\.|layer_idx\b)", r"self.\1", found.text)
        return Expression(text, found.values, found.precedence, found.cost)

    @cached_property
    def _with_given(self) -> Solver:
        """Over what the class is made with beside the config, too."""
        return Solver({**self.symbols, **self._given})

    @cached_property
    def _with_attributes(self) -> Solver:
        given = {} if self.from_config else {name: self._given[name] for name in self._given if "[" not in name}
        found = {f"self.{name}": values for name, values in {**self.found_attributes, **given}.items()}
        return Solver({**self.symbols, **found} if self.from_config else found)

    def _set_attributes(self, expression: Expression) -> bool:
        """Have `__init__` set the attributes that an expression uses; False if one of them cannot be expressed."""
        for name in re.findall(r"self\.(\w+)", expression.text):
            if name not in self.attributes:
                values = self.found_attributes.get(name, self._given.get(name))
                assert values is not None
                try:
                    self.attributes[name] = self._attribute(name, values)
                except NotExpressible:
                    return False
        return True

    def _attribute(self, name: str, values: Values) -> Expression:
        self._setting.append(name)
        try:
            return self.in_init(SymbolicValue(values), name)
        finally:
            self._setting.pop()

    def settle_attributes(self) -> None:
        """Put the attributes into HF's order, each expressed by those before it where that is shorter."""
        wanted, self.attributes = self.attributes, {}
        for name in [*self.found_attributes, *self._given]:
            if name in wanted and name not in self.attributes:
                self.attributes[name] = self._attribute(name, wanted[name].values)

    def note_keys(self, expression: Expression) -> None:
        """Take note of the config keys in an expression."""
        keys = re.findall(r"\bconfig\.(\w+)", expression.text)
        self.fields.update(keys)
        self.deciding.update(keys if any(isinstance(value, bool) for value in expression.values) else ())

    def _note(self, expression: Expression) -> None:
        self.note_keys(expression)
        known = {name.partition("[")[0] for name in self._given}
        asked = {name for name in known if re.search(rf"(?<![.\w]){name}\b", expression.text)} | {*self.arguments}
        self.arguments = {
            name: tuple(table.get(name, MISSING) for table in self._made_with)
            for name in dict.fromkeys(name for table in self._made_with for name in table)  # in HF's order
            if name in asked
        }

    def presence(self, there: tuple[bool, ...], what: str) -> Expression | None:
        """The condition in `__init__` for what only some instances have; None if all have it."""
        return None if all(there) else self.in_init(SymbolicValue(there), what)

    def of_layers(self, layers: list[Instance], there: tuple[bool, ...]) -> Expression:
        """The condition, over `config` and `layer_idx`, for some of the layers of a list."""
        found = Solver(symbols_of(layers)).solve(there)
        if found is None:
            paths = [
                next(one.block.path for one, is_there in zip(layers, there, strict=True) if is_there is s)
                for s in (True, False)
            ]
            raise Undecided(there, (paths[0], paths[1]), None)
        self._note(found)
        return found

    def condition(self, branch: Branch, where: object) -> Expression:
        """The condition in `forward` for the first side of a branch."""
        values = tuple(MISSING if side is None else side for side in branch.guard)
        try:
            return self.in_forward(SymbolicValue(values), "a condition")
        except NotExpressible as error:
            raise Undecided(values, branch.paths, where) from error

    def of_rounds(self, instances: list[Instance]) -> RoundScope:
        """The scope of a loop's body."""
        return RoundScope(self, instances)

    def run_time_size(self, value: Any) -> str | None:
        """What a size is called that is known at run time only."""
        if not isinstance(value, SymbolicValue):
            return None
        return next((name for values, name in self.run_time_sizes.items() if _same(value.values, values)), None)

    def limited(self, value: Any) -> Expression | None:
        """What a number is that is no greater than the slots of the cache, where it is that many in some instances."""
        samples = [instance.trace.sample for instance in self.instances]
        slots = tuple(sample.past + sample.length for sample in samples)
        if not isinstance(value, SymbolicValue) or _same(value.values, slots):
            return None
        pairs = list(zip(value.values, slots, strict=True))
        for column in {**self.found_attributes, **self.symbols}.values():
            whole = all(type(number) is int for number in column) and any(map(gt, column, slots))
            if whole and all(min(number, most) == own for number, (own, most) in zip(column, pairs, strict=True)):
                return self.in_forward(merge_values(column), "a number")
        return None

    @cached_property
    def run_time_sizes(self) -> dict[Values, str]:
        """Sizes of the example inputs in every instance → what they are called."""
        samples = [instance.trace.sample for instance in self.instances]
        return {
            tuple(sample.batch * sample.length for sample in samples): "num_tokens",
            tuple(sample.past + sample.length for sample in samples): "num_slots",
            tuple(sample.length for sample in samples): "seq_length",
            tuple(sample.batch for sample in samples): "batch_size",
        }

    def inputs(self, key: str) -> list[Value | None]:
        """What each instance takes under a name; None where it takes nothing."""
        return [dict(zip(one.block.keys, one.block.inputs, strict=True)).get(key) for one in self.instances]

    def input_dimension(self, size: Values) -> tuple[int, int] | None:
        """(input, dimension) of the class's `forward` that has a run-time size."""
        for number, key in enumerate(self.port_class.block.keys):
            shapes = [() if value is None else tuple(value.tensor.shape) for value in self.inputs(key)]
            for dim in range(max(map(len, shapes))):
                column = tuple(shape[dim] if dim < len(shape) else None for shape in shapes)
                if _same(size, column):
                    return number, dim
        return None


class RoundScope:
    """Expressions for the body of a loop over layers, whose number is the variable `layer_idx` there.

    Attributes:
        uses_layer_idx: whether an expression mentions it.
    """

    def __init__(self, outer: Scope, rounds: list[Instance]) -> None:
        self.outer = outer
        self.rounds = rounds
        self.symbols = symbols_of(rounds)
        self.uses_layer_idx = False
        self._solver = Solver(self.symbols)

    def in_forward(self, value: Any, what: str) -> Expression:
        """A value, as in `Scope.in_forward`."""
        if not isinstance(value, SymbolicValue):
            return self.outer.in_forward(value, what)
        flat = self._of_samples(value)
        if flat is not None:
            return self.outer.in_forward(flat, what)
        found = self._solver.solve(value.values)
        if found is None:
            raise NotExpressible(value.values, what)
        return self._noted(found)

    def _noted(self, found: Expression) -> Expression:
        self.outer.note_keys(found)
        self.uses_layer_idx |= re.search(r"\blayer_idx\b", found.text) is not None
        text = re.sub(r"(?<![.\w])config\.", "self.config.", found.text)
        return Expression(text, found.values, found.precedence, found.cost)

    def condition(self, branch: Branch, where: object) -> Expression:
        """The condition for the first side of a branch."""
        values = tuple(MISSING if side is None else side for side in branch.guard)
        try:
            return self.in_forward(SymbolicValue(values), "a condition")
        except NotExpressible as error:
            layers = tuple(
                next(f"layer {r.layer_idx}" for r, s in zip(self.rounds, values, strict=True) if s is side)
                for side in (True, False)
            )
            raise Undecided(values, (layers[0], layers[1]), where) from error

    def kinds(self, choices: tuple[int, ...]) -> tuple[str, dict[Any, int]] | None:
        """The config key with a list, layer by layer, that tells what a round takes, and what it takes for which.

        One with few kinds, as a list of the layers' numbers tells whatever they are, but of these layers only.
        """
        found: dict[str, dict[Any, int]] = {}
        samples = {id(one.trace): field_values(one.trace.sample.values) for one in self.rounds}
        numbers = {key: max(r.layer_idx or 0 for r in self.rounds if id(r.trace) == key) for key in samples}
        for key in next(iter(samples.values())):
            lists = {one: values.get(key) for one, values in samples.items()}
            if any(not isinstance(v, list) or len(v) != numbers[one] + 1 for one, v in lists.items()):
                continue
            items = [lists[id(r.trace)][r.layer_idx or 0] for r in self.rounds]  # type: ignore[index]
            table = {item: choice for item, choice in zip(items, choices, strict=True) if is_printable(item)}
            if all(table.get(item) == choice for item, choice in zip(items, choices, strict=True)):
                found[key] = table
        if not found:
            return None
        best = min(found, key=lambda key: len(found[key]))
        self.outer.fields.add(best)
        return best, found[best]

    def run_time_size(self, value: Any) -> str | None:
        """As `Scope.run_time_size`."""
        flat = self._of_samples(value) if isinstance(value, SymbolicValue) else None
        return None if flat is None else self.outer.run_time_size(flat)

    def limited(self, value: Any) -> Expression | None:
        """As `Scope.limited`."""
        flat = self._of_samples(value) if isinstance(value, SymbolicValue) else None
        return None if flat is None else self.outer.limited(flat)

    def _of_samples(self, value: SymbolicValue) -> Any:
        """A value that is the same in all rounds of an instance, as one for each instance; else None."""
        columns: list[Any] = []
        pairs = iter(zip(self.rounds, value.values, strict=True))
        for one, found in pairs:
            if one.round == 0:
                columns.append(MISSING)
            if found is not MISSING and columns[-1] is not MISSING and found != columns[-1]:
                return None
            columns[-1] = columns[-1] if found is MISSING else found
        return merge_values(tuple(columns))


def _same(values: Values, column: Values) -> bool:
    """Whether values are those of a column, where they are there at all."""
    return all(a is MISSING or a == b for a, b in zip(values, column, strict=True))


def _elements(table: dict[str, Any]) -> dict[str, int]:
    """The sizes in a shape that a module was made with, each by its place: `shape[0]`."""
    shapes = {name: value for name, value in table.items() if isinstance(value, tuple | list)}
    return {f"{name}[{i}]": size for name, shape in shapes.items() for i, size in enumerate(shape) if type(size) is int}


def _columns(tables: list[dict[str, Any]]) -> dict[str, Values]:
    """Name → its value in each instance, for the numbers and options among what modules were made with, or hold."""
    names = {name for table in tables for name, value in table.items() if isinstance(value, int | float)}
    return {
        name: tuple(table.get(name, MISSING) for table in tables)
        for name in dict.fromkeys(name for table in tables for name in table)
        if name in names and is_name(name.partition("[")[0]) and name[0] != "_" and name not in _NO_SIZES
    }
