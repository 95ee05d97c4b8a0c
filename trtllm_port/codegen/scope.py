"""What a class of the port may mention: config keys, its layer's number, its own arguments and attributes.

A class whose Hugging Face counterpart is made from a config is made from the port's config, `Class(config, layer_idx)`;
one that is made from sizes (`LlamaRMSNorm(hidden_size, eps)`) takes those of its sizes that it needs.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from trtllm_port.codegen.expressions import ATOM, Expression, Symbol, Values
from trtllm_port.codegen.formatting import literal
from trtllm_port.codegen.merging import Instance, PortClass
from trtllm_port.codegen.probing import named_activation
from trtllm_port.codegen.solver import Solver

_NO_SIZES = frozenset(("training", "layer_idx"))  # attributes and arguments of HF's modules that are no sizes


class NotExpressible(Exception):
    """A value of the traced computation follows from nothing that the config says."""

    def __init__(self, values: Values, what: str) -> None:
        super().__init__(f"{what} is {', '.join(dict.fromkeys(map(str, values)))} in the traced configurations")
        self.values = values


class Scope:
    """Expressions for the values of one class, and what printing them asked for.

    Attributes:
        attributes: what `__init__` has to set because `forward` uses it, by name, with the expression.
        arguments: what `__init__` has to take beside `config` and `layer_idx`: name → value in each instance.
        fields: config keys that the class uses.
    """

    def __init__(self, port_class: PortClass) -> None:
        self.port_class = port_class
        self.instances = port_class.instances
        self.attributes: dict[str, Expression] = {}
        self.arguments: dict[str, Values] = {}
        self.fields: set[str] = set()
        made_with = [instance.trace.made_with.get(instance.block.module, {}) for instance in self.instances]
        self.from_config = "config" in made_with[0] or not made_with[0] or not self.instances[0].block.path
        self._given = _columns(made_with) if not self.from_config else {}
        every = _atoms(self.instances)
        number = {name: values for name, values in every.items() if name == "layer_idx"}
        self._atoms = every if self.from_config else {**self._given, **number}
        self._solver = Solver(self._atoms)
        self._found_attributes = _columns([vars(instance.block.module) for instance in self.instances])

    def in_init(self, value: Any, what: str) -> Expression:
        """A value for `__init__`, over `config` and `layer_idx` (or the class's own arguments)."""
        if not isinstance(value, Symbol):
            return Expression(literal(value), (), ATOM, 0)
        plain = self._solver.solve(value.values)
        if self.attributes and (plain is None or plain.cost > 1):
            own = {f"self.{name}": found.values for name, found in self.attributes.items()}
            with_own = Solver({**self._atoms, **own}).solve(value.values)
            plain = with_own if with_own is not None and (plain is None or with_own.cost < plain.cost) else plain
        if plain is None:
            raise NotExpressible(value.values, what)
        self._note(plain)
        return plain

    def activation(self, value: Any) -> Expression:
        """An activation as an argument: the config key that names it, or its name."""
        if not isinstance(value, Symbol):
            return Expression(literal(value), (), ATOM, 0)
        for text, values in self._atoms.items():
            if all(isinstance(v, str) for v in values) and tuple(map(named_activation, values)) == value.values:
                found = Expression(text, values, ATOM, 1)
                self._note(found)
                return found
        raise NotExpressible(value.values, "an activation")

    def in_forward(self, value: Any, what: str) -> Expression:
        """A value for `forward`, over `self.config`, `self.layer_idx` and attributes that HF's class has."""
        if not isinstance(value, Symbol):
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
    def _with_attributes(self) -> Solver:
        found = {f"self.{name}": values for name, values in {**self._found_attributes, **self._given}.items()}
        return Solver({**self._atoms, **found} if self.from_config else found)

    def _set_attributes(self, expression: Expression) -> bool:
        """Have `__init__` set the attributes that an expression uses; False if one of them cannot be expressed."""
        for name in re.findall(r"self\.(\w+)", expression.text):
            if name not in self.attributes:
                values = self._found_attributes.get(name, self._given.get(name))
                assert values is not None
                try:
                    self.attributes[name] = self.in_init(Symbol(values), name)
                except NotExpressible:
                    return False
        return True

    def settle_attributes(self) -> None:
        """Put the attributes into HF's order, each expressed by those before it where that is shorter."""
        wanted, self.attributes = self.attributes, {}
        for name in [*self._found_attributes, *self._given]:
            if name in wanted and name not in self.attributes:
                self.attributes[name] = self.in_init(Symbol(wanted[name].values), name)

    def _note(self, expression: Expression) -> None:
        self.fields.update(re.findall(r"\bconfig\.(\w+)", expression.text))
        for name, values in self._given.items():
            if re.search(rf"(?<![.\w]){name}\b", expression.text):
                self.arguments[name] = values
        self.arguments = {name: self._given[name] for name in self._given if name in self.arguments}  # HF's order

    def per_layer(self, groups: list[int]) -> str | None:
        """The config key whose list, layer by layer, tells apart what `groups` numbers."""
        samples = {id(instance.trace.sample): instance.trace.sample for instance in self.instances}
        for key, value in next(iter(samples.values())).values.items():
            if isinstance(value, list) and all(
                _partitions(sample.values.get(key), groups) for sample in samples.values()
            ):
                self.fields.add(key)
                return key
        return None

    def config_list(self, key: str) -> list[Any]:
        """The first traced configuration's value of a key."""
        return list(self.instances[0].trace.sample.values[key])

    def is_dynamic(self, value: Any) -> bool:
        """Whether a size is known at run time only."""
        return isinstance(value, Symbol) and value.values in self.run_time_sizes

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

    def input_dimension(self, size: Values) -> tuple[int, int] | None:
        """(input, dimension) of the class's `forward` that has a run-time size."""
        for number, value in enumerate(self.instances[0].block.inputs):
            for dim in range(value.tensor.ndim):
                if tuple(instance.block.inputs[number].tensor.shape[dim] for instance in self.instances) == size:
                    return number, dim
        return None


def _partitions(value: Any, groups: list[int]) -> bool:
    if not isinstance(value, list) or len(value) != len(groups):
        return False
    pairs = {(str(item), group) for item, group in zip(value, groups, strict=True)}
    return len(pairs) == len({item for item, _ in pairs}) == len(set(groups))


def _columns(tables: list[dict[str, Any]]) -> dict[str, Values]:
    """Name → its value in each instance, for the numbers among what modules were made with, or hold."""
    return {
        name: tuple(table.get(name) for table in tables)
        for name, value in tables[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name[0] != "_" and name not in _NO_SIZES
    }


def _atoms(instances: list[Instance]) -> dict[str, Values]:
    configs = [instance.trace.sample.values for instance in instances]
    atoms: dict[str, Values] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        column = tuple(config.get(key) for config in configs)
        atoms[f"config.{key}"] = column
        dicts = [value for value in column if isinstance(value, dict)]
        if len(dicts) == len(column):
            for inner in dicts[0]:
                if all(inner in value for value in dicts):
                    atoms[f'config.{key}["{inner}"]'] = tuple(value[inner] for value in dicts)
    numbers = [instance.layer_idx for instance in instances]
    layers = tuple(number for number in numbers if number is not None)
    if len(layers) == len(numbers):
        atoms["layer_idx"] = layers
        for key in configs[0]:
            lists = [config[key] for config in configs if isinstance(config.get(key), list)]
            if len(lists) == len(configs) and all(n < len(v) for v, n in zip(lists, layers, strict=True)):
                column = tuple(v[n] for v, n in zip(lists, layers, strict=True))
                atoms[f"config.{key}[layer_idx]"] = column
    return atoms
