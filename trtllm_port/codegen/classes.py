"""Classes of the port as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trtllm_port.codegen.expressions import Symbol
from trtllm_port.codegen.formatting import indent, literal, wrap
from trtllm_port.codegen.ir import Leaf
from trtllm_port.codegen.lowering import Lowered, stored_tensor
from trtllm_port.codegen.merging import PortClass, merge_values
from trtllm_port.codegen.printing import Untranslated
from trtllm_port.codegen.recorder import Value, words
from trtllm_port.codegen.scope import NotExpressible, Scope
from trtllm_port.codegen.sizes import LAYER_COUNTS, layer_count_key
from trtllm_port.codegen.statements import Body, Writer

# Names that generated code takes from `trtllm_port.layers` beside functions, and so cannot use for variables.
RESERVED = words(
    "causal_mask chunked_causal_mask rotary_embedding attention gather_tokens concat stack softmax where shape"
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "Linear": {"bias": True},
    "RmsNorm": {"offset": 0.0},
    "LayerNorm": {"bias": True},
}


class DependsOnData(Exception):
    """Python code of the model decides by the content of a tensor: a network cannot."""

    def __init__(self, where: str) -> None:
        super().__init__(f"what it computes depends on the content of a tensor: {where}")


@dataclass(frozen=True)
class Skeleton:
    """A class that could not be translated: what stopped it, and where Hugging Face has it."""

    name: str
    path: str
    reason: str


@dataclass
class ClassText:
    """One class as text, with what it needs around it."""

    name: str
    lines: list[str]
    imports: set[str]
    fields: set[str]
    takes_config: bool = True
    takes_layer_idx: bool = False
    arguments: list[str] = field(default_factory=list)
    skeleton: Skeleton | None = None


class ClassWriter:
    """Writes the classes of one port.

    Args:
        samples: the lowered traces.
        config_class: name of the port's config class.
    """

    def __init__(self, samples: list[Lowered], config_class: str) -> None:
        self.samples = samples
        self.config_class = config_class
        self.done: dict[str, ClassText] = {}
        first = samples[0]
        self.preferred = {
            first.trace.inputs["cache"]: "cache",
            first.trace.inputs["input_ids"]: "input_ids",
            first.trace.inputs["position_ids"]: "position_ids",
            first.logits_indices: "logits_indices",
        }
        self.common = _common_names(samples[0])
        self.layer_count_key = layer_count_key(first.trace.sample.values) or LAYER_COUNTS[0]

    def write(self, port_class: PortClass, *, is_model: bool) -> ClassText:
        """The text of a class whose sub-modules' classes are written already."""
        scope = Scope(port_class)
        skeleton = None
        body: Body | None = None
        try:
            if port_class.block.host_reads:
                raise DependsOnData(", ".join(port_class.block.host_reads))
            body = Writer(scope, self.preferred, self.common, RESERVED).write(port_class.block)
        except (Untranslated, NotExpressible, DependsOnData) as reason:
            skeleton = Skeleton(port_class.name, port_class.block.path, str(reason))
        text = ClassText(port_class.name, [], {"Tensor"}, set(), skeleton=skeleton)
        forward = self._forward(port_class, body, skeleton, text, is_model=is_model)
        init = self._init(port_class, scope, body, forward, text, is_model=is_model)
        base = "DecoderModelForCausalLM" if is_model else "Module"
        text.imports.add(base)
        head = [f"class {port_class.name}({base}):"]
        if is_model:
            head += indent(self._class_variables())
        text.lines = [*head, *indent(init), "", *indent(forward)]
        text.fields |= scope.fields
        self.done[port_class.name] = text
        return text

    def _class_variables(self) -> list[str]:
        prefix = getattr(self.samples[0].trace.model, "base_model_prefix", "model")
        lines = [f"config_class = {self.config_class}", "weight_map = WEIGHT_MAP"]
        if prefix != "model":
            lines.append(f"base_model_prefix = {literal(prefix)}")
        return [*lines, ""]

    # forward

    def _forward(
        self, port_class: PortClass, body: Body | None, skeleton: Skeleton | None, text: ClassText, *, is_model: bool
    ) -> list[str]:
        names = [self._parameter_name(value, body, i) for i, value in enumerate(port_class.block.inputs)]
        if is_model:
            names = ["input_ids", "position_ids", "cache", "logits_indices"]
        if "cache" in names:
            text.imports.add("KVCache")
        parameters = ", ".join(["self", *(f"{name}: {'KVCache' if name == 'cache' else 'Tensor'}" for name in names)])
        count = len(port_class.block.outputs)
        returns = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
        signature = wrap(f"def forward({parameters}) -> {returns}:", 4)
        if len(signature) > 1:
            signature = _wrap_signature(f"def forward({parameters}) -> {returns}:")
        if body is None:
            assert skeleton is not None
            message = f"{port_class.name}.forward: {skeleton.reason}"
            return [
                *signature,
                "    # TODO: translate this by hand; see the Hugging Face source that the message names",
                *indent(wrap(f"raise NotImplementedError({literal(message)})", 8)),
            ]
        text.imports |= body.printer.functions
        return [*signature, *indent(body.lines)]

    def _parameter_name(self, value: Value, body: Body | None, index: int) -> str:
        if body is not None:
            return body.parameters[index]
        return self.preferred.get(value) or self.common.get(value) or f"x{index}"

    # __init__

    def _init(
        self,
        port_class: PortClass,
        scope: Scope,
        body: Body | None,
        forward: list[str],
        text: ClassText,
        *,
        is_model: bool,
    ) -> list[str]:
        children = self._children(port_class, scope, text)
        parameters = self._parameters(body, scope, text)
        attributes = [f"self.{name} = {found.text}" for name, found in scope.attributes.items()]
        made = [line for line in (*forward, *children, *parameters, *attributes) if "DecoderLayerList(" not in line]
        text.takes_layer_idx = any("layer_idx" in line for line in made)
        lines = ["super().__init__(config)" if is_model else "super().__init__()"]
        if "self.config." in "\n".join(forward) and not is_model:
            lines.append("self.config = config")
        if "self.layer_idx" in "\n".join(forward):
            lines.append("self.layer_idx = layer_idx")
        lines += attributes + children + parameters
        if is_model:
            lines += self._tied(scope)
        text.takes_config = scope.from_config or "self.config" in "\n".join(forward)
        text.arguments = list(scope.arguments)
        taken = [
            "self",
            f"config: {self.config_class}" if text.takes_config else "",
            "layer_idx: int" if text.takes_layer_idx else "",
        ]
        taken += [f"{name}: {type(values[0]).__name__}" for name, values in scope.arguments.items()]
        signature = f"def __init__({', '.join(filter(None, taken))}) -> None:"
        wrapped = [piece for line in lines for piece in _wrap_indented(line, 8)]
        return [signature, *indent(wrapped)]

    def _children(self, port_class: PortClass, scope: Scope, text: ClassText) -> list[str]:
        """`self.name = …` for every sub-module that is used, in the order of HF's `__init__`."""
        module = port_class.block.module
        order = {name: i for i, (name, _) in enumerate(module.named_modules())}
        lines = []
        for path, child in sorted(
            port_class.children.items(), key=lambda item: order.get(item[0].replace(".*", ".0"), 0)
        ):
            lines.append(f"self.{path.removesuffix('.*')} = {self._constructor(path, child, scope, text)}")
        return lines

    def _constructor(self, path: str, child: PortClass | Leaf, scope: Scope, text: ClassText) -> str:
        if isinstance(child, Leaf):
            return self._leaf(path, child, scope, text)
        written = self.done[child.name]
        if not path.endswith(".*"):
            given = ["config"] if written.takes_config else []
            given += ["layer_idx"] if written.takes_layer_idx else []
            given += [self._handed_over(path, child, name, scope) for name in written.arguments]
            return f"{child.name}({', '.join(given)})"
        text.imports.add("DecoderLayerList")
        key = self.layer_count_key
        text.fields.add(key)
        factory = child.name if written.takes_layer_idx else f"lambda config, layer_idx: {child.name}(config)"
        count = "" if key == "num_hidden_layers" else f", config.{key}"
        return f"DecoderLayerList({factory}, config{count})"

    def _handed_over(self, path: str, child: PortClass, name: str, scope: Scope) -> str:
        """An argument for a sub-module that is not made from a config."""
        made: dict[tuple[int, str], object] = {}
        for instance in child.instances:
            made[id(instance.trace), instance.block.path] = instance.trace.made_with[instance.block.module][name]
        column = []
        for instance in scope.instances:
            prefix = f"{instance.block.path}." if instance.block.path else ""
            column.append(made[id(instance.trace), prefix + path])
        return scope.in_init(merge_values(tuple(column)), f"`{name}` of `{path}`").text

    def _leaf(self, path: str, leaf: Leaf, scope: Scope, text: ClassText) -> str:
        text.imports.add(leaf.kind)
        what = f"an argument of `{path}`"
        if leaf.kind == "Activation":
            return f"Activation({scope.activation(leaf).text})"
        args = [scope.in_init(arg, what).text for arg in leaf.args]
        for key, value in leaf.keywords.items():
            if value != DEFAULTS.get(leaf.kind, {}).get(key, object()):
                args.append(f"{key}={scope.in_init(value, what).text}")
        return f"{leaf.kind}({', '.join(args)})"

    def _parameters(self, body: Body | None, scope: Scope, text: ClassText) -> list[str]:
        """Parameters that `forward` uses itself."""
        lines = []
        for path in sorted(body.printer.parameters if body else ()):
            if "." in path:
                continue  # a sub-module's
            names = [f"{i.block.path}.{path}" if i.block.path else path for i in scope.instances]
            shapes = [stored_tensor(i.trace.model, n).shape for i, n in zip(scope.instances, names, strict=True)]
            sizes = [merge_values(column) for column in zip(*shapes, strict=True)]
            texts = [scope.in_init(size, f"a size of `{path}`").text for size in sizes]
            inner = f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"
            text.imports.add("Parameter")
            lines.append(f"self.{path} = Parameter({inner})")
        return lines

    def _tied(self, scope: Scope) -> list[str]:
        """Parameters that are one tensor under two names."""
        lines = []
        for pair, tied in _tied_pairs(self.samples).items():
            statement = f"self.{pair[1]} = self.{pair[0]}"
            if all(tied):
                lines.append(statement)
                continue
            condition = scope.in_init(Symbol(tied), f"whether `{pair[1]}` is `{pair[0]}`").text
            lines += [f"if {condition}:", f"    {statement}"]
        return lines


def _wrap_indented(line: str, depth: int) -> list[str]:
    lead = len(line) - len(line.lstrip())
    return indent(wrap(line.lstrip(), depth + lead), lead)


def _wrap_signature(line: str) -> list[str]:
    head, _, rest = line.partition("(")
    inner, _, tail = rest.rpartition(") ->")
    if len(inner) + 8 <= 120:
        return [f"{head}(", f"    {inner}", f") ->{tail}"]
    return [f"{head}(", *(f"    {part.strip()}," for part in inner.split(", ")), f") ->{tail}"]


def _common_names(sample: Lowered) -> dict[Value, str]:
    """value → the name that it has most often, over all classes."""
    counts: dict[Value, Counter[str]] = {}
    for block in sample.blocks:
        for value, names in block.names.items():
            counts.setdefault(value, Counter()).update(name for name in names if not name.endswith("[]"))
    return {value: counter.most_common(1)[0][0] for value, counter in counts.items() if counter}


def _tied_pairs(samples: Iterable[Lowered]) -> Mapping[tuple[str, str], tuple[bool, ...]]:
    """(first name, other name) of parameters that are the same tensor in any sample → in which samples they are."""
    found: list[set[tuple[str, str]]] = []
    for sample in samples:
        first: dict[int, str] = {}
        pairs = set()
        for name, parameter in sample.trace.model.named_parameters(remove_duplicate=False):
            if first.setdefault(id(parameter), name) != name:
                pairs.add((first[id(parameter)], name))
        found.append(pairs)
    every = sorted(set().union(*found))
    return {pair: tuple(pair in pairs for pairs in found) for pair in every}
