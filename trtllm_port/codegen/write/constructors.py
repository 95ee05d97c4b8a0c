"""The `__init__` of the port's classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from trtllm_port.codegen.configs.sizes import LAYER_COUNTS, layer_count_key
from trtllm_port.codegen.ir.dtypes import DTYPES, MODEL_DTYPE
from trtllm_port.codegen.ir.expressions import MISSING, SymbolicValue, merge_values
from trtllm_port.codegen.ir.formatting import indent, reference
from trtllm_port.codegen.ir.nodes import Instance, Leaf
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.classes import Child, PortClass
from trtllm_port.codegen.merge.shared_weights import shared_blocks
from trtllm_port.codegen.recognise.constants import stored_tensor
from trtllm_port.codegen.solve.not_expressible import NotExpressible
from trtllm_port.codegen.write.branches import merge_conditions
from trtllm_port.codegen.write.conditional_sizes import complete_size
from trtllm_port.codegen.write.scope import Scope
from trtllm_port.codegen.write.weight_names import used_by, used_tensors
from trtllm_port.foundation.quoting import literal

DEFAULTS: dict[str, dict[str, Any]] = {  # of the layers' arguments, which are not printed
    "Linear": {"bias": True},
    "CausalConv1d": {"bias": True, "activation": None, "channels_last": False},
    "RmsNorm": {"offset": 0.0},
    "LayerNorm": {"bias": True, "eps": 1e-5},
    "RotaryEmbedding": {"dtype": None, "by_alpha": False},
}
ENDS_WITH_ACTIVATION = ("Activation", "ACT2FN", "Experts")


@dataclass
class Constructor:
    """A printed `__init__`, and what whoever calls it has to know.

    Attributes:
        imports: of `trtllm_port.layers`.
        fields: config keys that it reads beside those of the scope.
        arguments: beside `config` and `layer_idx`, the optional ones last.
        optional: those of `arguments` that may be left out.
    """

    lines: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    takes_config: bool = True
    takes_layer_idx: bool = False
    arguments: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()


class ConstructorWriter:
    """Writes the `__init__` of one class.

    Args:
        port_class: the class.
        scope: its expressions; `forward` is written, so the scope knows which attributes that needs.
        config_class: name of the port's config class.
        done: constructors of the classes of its sub-modules, by name.
    """

    def __init__(self, port_class: PortClass, scope: Scope, config_class: str, done: Mapping[str, Constructor]) -> None:
        self.port_class = port_class
        self.scope = scope
        self.config_class = config_class
        self.done = done
        self.made = Constructor()
        self.holders: set[str] = set()  # modules that only hold others

    def write(self, forward: list[str], parameters: list[str], tied: list[str], *, is_model: bool) -> Constructor:
        """The constructor.

        Args:
            forward: the text of `forward`.
            parameters: names of parameters that `forward` uses itself.
            tied: statements that make one parameter of two.
            is_model: whether this is the outermost class.

        Raises:
            NotExpressible: a size follows from nothing in the config.
        """
        made, text = self.made, "\n".join(forward)
        self.scope.settle_attributes()
        children = [*self._bare(parameters), *self._children()]
        alone = ("", *self.holders)  # parameters of other modules are made there
        own = [line for path in parameters if path.rpartition(".")[0] in alone for line in self._parameter(path)]
        attributes = [f"self.{name} = {found.text}" for name, found in self.scope.attributes.items()]
        lists = [line for line in children if "DecoderLayerList(" in line or " for layer_idx in " in line]
        made.takes_layer_idx = any("layer_idx" in s for s in (*attributes, *own, *children) if s not in lists)
        made.takes_layer_idx |= "self.layer_idx" in text
        made.takes_config = is_model or self.scope.from_config or "self.config" in text
        made.optional = frozenset(name for name, values in self.scope.arguments.items() if None in values)
        made.arguments = tuple(sorted(self.scope.arguments, key=lambda name: name in made.optional))
        lines = ["super().__init__(config)" if is_model else "super().__init__()"]
        lines += ["self.config = config"] if "self.config" in text and not is_model else []
        lines += ["self.layer_idx = layer_idx"] if "self.layer_idx" in text else []
        lines += attributes + merge_conditions([*children, *own, *tied])
        made.lines = [self._signature(), *indent(lines)]
        return made

    def _signature(self) -> str:
        taken = ["self"]
        taken += [f"config: {self.config_class}"] if self.made.takes_config else []
        taken += ["layer_idx: int"] if self.made.takes_layer_idx else []
        for name in self.made.arguments:
            kind = _annotation(next(v for v in self.scope.arguments[name] if v is not None and v is not MISSING))
            taken.append(f"{name}: {kind} | None = None" if name in self.made.optional else f"{name}: {kind}")
        return f"def __init__({', '.join(taken)}) -> None:"

    # sub-modules

    def _children(self) -> Iterator[str]:
        """`self.name = …` for every sub-module that is used, in the order of HF's `__init__`."""
        order = {name: i for i, (name, _) in enumerate(self.port_class.block.module.named_modules())}
        children = self.port_class.children
        holders = self.holders
        counts: Counter[str] = Counter()  # of what is in lists
        for path in sorted(children, key=lambda path: order.get(path.replace(".*", ".0").partition("[")[0], 0)):
            name = path.removesuffix(".*")
            if path.endswith("]"):
                yield from self._entry(path)
                continue
            parts = name.split(".")
            for holder in (".".join(parts[:i]) for i in range(1, len(parts))):
                if holder not in children and holder not in holders:
                    holders.add(holder)
                    kind = (
                        "ModuleList"
                        if any(re.match(rf"{re.escape(holder)}\.\d", one) for one in children)
                        else "Module"
                    )
                    self.made.imports.add(kind)
                    yield from self._filled_up(holder, counts)
                    yield assigned(holder, f"{kind}()")
            yield from self._filled_up(name, counts)
            yield from self._options(path, children[path])

    def _bare(self, parameters: list[str]) -> Iterator[str]:
        """Modules that hold parameters which `forward` uses, and that are not called themselves."""
        called = {path.removesuffix(".*") for path in self.port_class.children}
        for owner in dict.fromkeys(path.rpartition(".")[0] for path in parameters):
            parts = owner.split(".")
            around = [".".join(parts[:i]) for i in range(1, len(parts) + 1)] if owner else []
            if called.isdisjoint(around):
                for holder in (path for path in around if path not in self.holders):
                    self.holders.add(holder)
                    self.made.imports.add("Module")
                    yield assigned(holder, "Module()")

    def _filled_up(self, name: str, counts: Counter[str]) -> Iterator[str]:
        """Empty places in a list for modules that compute nothing, before what comes behind them."""
        holder, _, last = name.rpartition(".")
        if last.isdigit():
            missing = int(last) - counts[holder]
            if missing:
                self.made.imports.add("Module")
            yield from [assigned(name, "Module()")] * missing
            counts[holder] = int(last) + 1

    def _entry(self, path: str) -> Iterator[str]:
        """The statement for modules that the port holds by name, at the first of them."""
        name = path.partition("[")[0]
        paths = [one for one in self.port_class.children if one.partition("[")[0] == name]
        if path != paths[0]:
            return
        self.made.imports.add("ModuleDict")
        texts = {one[len(name) + 1 : -1]: self._child(one, self.port_class.children[one][0]) for one in paths}
        key = next(iter(texts))
        found = re.search(rf"config\.(\w+)\[{re.escape(key)}\]", texts[key])
        general = {
            found and text.replace(f"config.{found[1]}[{one}]", "parameters").replace(f".index({one})", ".index(name)")
            for one, text in texts.items()
        }
        entries = [f"{one}: {text}," for one, text in texts.items()]
        if found is not None and len(general) == 1:  # one for each set of parameters in the config
            entries = [f"name: {general.pop()}", f"for name, parameters in config.{found[1]}.items()"]
            entries += ["if parameters is not None"] if self._has_none(found[1]) else []
        yield f"{reference(name)} = ModuleDict("
        yield from indent(["{", *indent(entries), "}"])
        yield ")"

    def _has_none(self, key: str) -> bool:
        """Whether a dict of the config has nothing under some of its keys."""
        return any(None in one.trace.sample.values[key].values() for one in self.scope.instances)

    def _options(self, path: str, options: list[Child]) -> Iterator[str]:
        """The statement for a sub-module, which may be one or the other, or not always there."""
        name, what = path.removesuffix(".*"), f"what `{path}` is"
        if path.endswith(".*") and not isinstance(options[0].made, Leaf):
            yield assigned(name, self._layers(name, options))
            return
        there = tuple(any(column) for column in zip(*(option.there for option in options), strict=True))
        condition = self.scope.presence(there, f"whether there is a `{path}`")
        text = self._child(path, options[-1])
        for number, option in reversed(list(enumerate(options[:-1]))):
            rest = [other.there for other in options[number:]]
            column = tuple(any(one) for one in zip(*rest, strict=True))
            known = tuple(mine if some else MISSING for mine, some in zip(option.there, column, strict=True))
            choice = self.scope.in_init(SymbolicValue(known), what).text
            text = f"{self._child(path, option)} if {choice} else {text}"
        statement = assigned(name, text)
        yield from [f"if {condition.text}:", f"    {statement}"] if condition else [statement]

    def _child(self, path: str, option: Child) -> str:
        if isinstance(option.made, Leaf):
            return self._equal(path, option) if path.endswith(".*") else self._leaf(path, option.made)
        written = self.done[option.made.name]
        given = [
            self._layer_of(path, option) if one == "layer_idx" else one for one in self._given(option.made, written)
        ]
        for name in written.arguments:
            text = self._handed_over(path, option, name)
            given += [] if text == "None" else [f"{name}={text}" if name in written.optional else text]
        return f"{option.made.name}({', '.join(given)})"

    def _layer_of(self, path: str, child: Child) -> str:
        """The number for a sub-module: that of the layer, unless there are several with numbers of their own."""
        assert isinstance(child.made, PortClass)  # basic layers take none
        found = {(id(one.trace), one.block.path): one.layer_idx for one in child.made.instances}
        instances = self.scope.instances
        names = (f"{one.block.path}.{path}" for one in instances)
        column = tuple(found.get((id(one.trace), name), MISSING) for one, name in zip(instances, names, strict=True))
        own = all(number in (MISSING, one.layer_idx) for number, one in zip(column, instances, strict=True))
        return "layer_idx" if own else self.scope.in_init(merge_values(column), f"the number of `{path}`").text

    def _given(self, child: PortClass, written: Constructor) -> list[str]:
        return [*(["config"] if written.takes_config else []), *(["layer_idx"] if written.takes_layer_idx else [])]

    def _layers(self, name: str, options: list[Child]) -> str:
        count = self._count(name)
        classes = [option.made for option in options if isinstance(option.made, PortClass)]
        calls = [f"{one.name}({', '.join(self._given(one, self.done[one.name]))})" for one in classes]
        gaps = self._gaps(name)
        if len(classes) == 1 and gaps is None and self.done[classes[0].name].takes_layer_idx:
            self.made.imports.add("DecoderLayerList")
            given = "" if count == "config.num_hidden_layers" else f", {count}"
            return f"DecoderLayerList({classes[0].name}, config{given})"
        self.made.imports.add("ModuleList")
        layer = self._one_of(classes, calls)
        if gaps is not None:
            self.made.imports.add("Module")
            layer = f"{layer} if {gaps} else Module()"
        return f"ModuleList({layer} for {'layer_idx' if 'layer_idx' in layer else '_'} in range({count}))"

    def _count(self, name: str) -> str:
        """How many layers a list has: as many as the model, unless several lists have some of them each."""
        key = layer_count_key(self.scope.instances[0].trace.sample.values) or LAYER_COUNTS[0]
        lists = [instance.block.module.get_submodule(name) for instance in self.scope.instances]
        lengths = tuple(len(one) for one in lists if isinstance(one, nn.ModuleList))
        counts = [instance.trace.sample.values.get(key) for instance in self.scope.instances]
        if len(lengths) == len(lists) and any(a != b for a, b in zip(lengths, counts, strict=True)):
            return self.scope.in_init(merge_values(lengths), f"the length of `{name}`").text
        self.made.fields.add(key)
        return f"config.{key}"

    def _equal(self, path: str, option: Child) -> str:
        """A list of equal basic layers."""
        assert isinstance(option.made, Leaf)  # of such a list
        pairs = zip(self.scope.instances, option.there, strict=True)
        modules = [one.block.module.get_submodule(path[:-2]) if there else None for one, there in pairs]
        counts = tuple(MISSING if found is None else len(list(found.children())) for found in modules)
        count = self.scope.in_init(merge_values(counts), f"the number of `{path}`").text
        self.made.imports.add("ModuleList")
        return f"ModuleList({self._leaf(path, option.made)} for _ in range({count}))"

    def _gaps(self, name: str) -> str | None:
        """The condition for those layers of a list that compute something; None if all do."""
        for loop in self.port_class.block.nodes:
            there = tuple(bool(one.block.nodes) for one in loop.instances)
            if loop.form == "loop" and loop.name == name and not all(there):
                return self.scope.of_layers(loop.instances, there).text
        return None

    def _one_of(self, classes: list[PortClass], calls: list[str]) -> str:
        """The call for a layer, whose class depends on its number."""
        text = calls[-1]
        for number in reversed(range(len(classes) - 1)):
            layers = [instance for one in classes[number:] for instance in one.instances]
            there = tuple(i < len(classes[number].instances) for i in range(len(layers)))
            text = f"{calls[number]} if {self.scope.of_layers(layers, there).text} else {text}"
        return text

    def _handed_over(self, path: str, child: Child, name: str) -> str:
        """An argument for a sub-module that is not made from a config."""
        assert isinstance(child.made, PortClass)  # basic layers are given their arguments elsewhere
        found = {(id(i.trace), i.block.path): i.trace.made_with[i.block.module][name] for i in child.made.instances}
        instances = self.scope.instances
        paths = [f"{i.block.path}.{path}" if i.block.path else path for i in instances]
        column = tuple(
            found[id(i.trace), full] if there else MISSING
            for i, full, there in zip(instances, paths, child.there, strict=True)
        )
        what, known = f"`{name}` of `{path}`", [value for value in column if value is not MISSING]
        if not any(isinstance(value, tuple | list) for value in known):
            return self.scope.in_init(complete_size(merge_values(column), path, self.scope), what).text
        lengths = {len(value) if isinstance(value, tuple | list) else 0 for value in known}
        if len(lengths) > 1:
            raise NotExpressible(column, what)
        parts = [tuple(MISSING if v is MISSING else v[i] for v in column) for i in range(lengths.pop())]  # type: ignore[index]  # shapes
        return _tuple([self.scope.in_init(merge_values(part), what).text for part in parts])

    def _leaf(self, path: str, leaf: Leaf) -> str:
        self.made.imports.add(leaf.kind)
        what = f"an argument of `{path}`"
        defaults = DEFAULTS.get(leaf.kind, {})
        sizes = leaf.args[:-1] if leaf.kind in ENDS_WITH_ACTIVATION else leaf.args
        args = [self._size(arg, path, what) for arg in sizes]
        args += [self.scope.activation(arg).text for arg in leaf.args[len(sizes) :]]
        named = {k: v for k, v in leaf.keywords.items() if k not in defaults or v != defaults[k]}
        args += [f"{key}={self.scope.in_init(value, what).text}" for key, value in named.items()]
        return f"ACT2FN[{args[0]}]" if leaf.kind == "ACT2FN" else f"{leaf.kind}({', '.join(args)})"

    def _size(self, value: Any, path: str, what: str) -> str:
        return self.scope.named(value, path) or self.scope.in_init(complete_size(value, path, self.scope), what).text

    def _parameter(self, path: str) -> Iterator[str]:
        """A parameter that `forward` uses itself."""
        shapes = [self._shape(instance, path) for instance in self.scope.instances]
        rank = len(next(shape for shape in shapes if shape is not None))
        columns = [tuple(MISSING if shape is None else shape[i] for shape in shapes) for i in range(rank)]
        sizes = [self.scope.in_init(merge_values(column), f"a size of `{path}`").text for column in columns]
        self.made.imports.add("Parameter")
        dtype = self._dtype(path)
        options = "" if dtype == MODEL_DTYPE else f", {literal(dtype)}"
        shape = sizes[0].removesuffix("[0]") if sizes else ""  # an argument, if that is the whole of it
        whole = shape in self.scope.arguments and sizes == [f"{shape}[{i}]" for i in range(rank)]
        statement = f"{reference(path)} = Parameter({shape if whole else _tuple(sizes)}{options})"
        condition = self.scope.presence(tuple(shape is not None for shape in shapes), f"whether there is a `{path}`")
        yield from [f"if {condition.text}:", f"    {statement}"] if condition else [statement]

    def _dtype(self, path: str) -> str:
        """The data type of a parameter that `forward` uses: the model's, or the one that it keeps whatever that is."""
        instance = next(instance for instance in self.scope.instances if self._shape(instance, path) is not None)
        name = f"{instance.block.path}.{path}" if instance.block.path else path
        return DTYPES[stored_tensor(instance.trace.model, name).dtype]

    def _shape(self, instance: Instance, path: str) -> tuple[int, ...] | None:
        """The shape of a parameter that an instance, or a module around it, uses; None if it does not."""
        name = f"{instance.block.path}.{path}" if instance.block.path else path
        is_used = name in used_by(instance.block) or instance.block in self.port_class.lent.get(path, ())
        return tuple(stored_tensor(instance.trace.model, name).shape) if is_used else None


def _tuple(texts: list[str]) -> str:
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _annotation(value: Any) -> str:
    """The type of an argument."""
    return "tuple[int, ...]" if isinstance(value, tuple | list) else type(value).__name__


def assigned(path: str, text: str) -> str:
    """The statement that makes a module what `path` says; those that have numbers are in lists, one after the other."""
    holder, _, last = path.rpartition(".")
    target = reference(holder) if last.isdigit() else reference(path)
    return f"{target}.append({text})" if last.isdigit() else f"{target} = {text}"


def tied_parameters(samples: list[Lowered], scope: Scope) -> list[str]:
    """Statements for parameters that are one tensor under two names, in all samples or where the config says so.

    A name that the forward pass does not use counts, too, where its module is in the port: files may hold that one.
    """
    found: list[set[tuple[str, str]]] = []
    for sample in samples:
        used = used_tensors(sample)
        holders = {block.path for block in sample.blocks}
        names: dict[int, list[str]] = {}
        for name, parameter in sample.trace.model.named_parameters(remove_duplicate=False):
            if name in used or name.rpartition(".")[0] in holders:
                names.setdefault(id(parameter), []).append(name)
        groups = (sorted(group, key=lambda name: name not in used) for group in names.values())
        found.append({(group[0], other) for group in groups if group[0] in used for other in group[1:]})
    lines = []
    for blocks in shared_blocks([sample.trace.model for sample in samples], found):
        count = scope.in_init(merge_values(blocks.counts), f"how many `{blocks.block}` there are").text
        statement = f"share_weights({reference(blocks.layers)}, {literal(blocks.block)}, {count})"
        shared = tuple(count is not MISSING for count in blocks.counts)
        where = scope.presence(shared, f"whether `{blocks.block}` is shared")
        lines += [f"if {where.text}:", f"    {statement}"] if where else [statement]
        found = [pairs - own for pairs, own in zip(found, blocks.pairs, strict=True)]
    for pair in sorted(set().union(*found)):
        tied = merge_values(tuple(pair in pairs for pairs in found))
        statement = f"{reference(pair[1])} = {reference(pair[0])}"
        if isinstance(tied, SymbolicValue):
            condition = scope.in_init(tied, f"whether `{pair[1]}` is `{pair[0]}`").text
            lines += [f"if {condition}:", f"    {statement}"]
        else:
            lines.append(statement)
    return lines
