"""Classes of the port as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trtllm_port.codegen.ir.formatting import indent
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.classes import PortClass
from trtllm_port.codegen.solve.not_expressible import NotExpressible
from trtllm_port.codegen.write.common_subexpressions import SubexpressionNames
from trtllm_port.codegen.write.constructors import Constructor, ConstructorWriter, tied_parameters
from trtllm_port.codegen.write.printing import Untranslated
from trtllm_port.codegen.write.scope import Scope
from trtllm_port.codegen.write.statements import Body, ForwardWriter
from trtllm_port.foundation.quoting import literal, require_name
from trtllm_port.layers import Tensor, functional

#: Functions of `trtllm_port.layers` that are printed as calls, not as methods: no names for variables.
RESERVED = frozenset(functional.__all__) - frozenset(dir(Tensor)) | {"softmax"}
MODEL_INPUTS = ("input_ids", "position_ids", "cache", "logits_indices")


class DependsOnData(Exception):
    """Python code of the model decides by the content of a tensor: a network cannot."""

    def __init__(self, where: str) -> None:
        super().__init__(f"what it computes depends on the content of a tensor: {where}")


MENTIONED = {  # text that needs an import
    **{"cache: KVCache": "KVCache", "normal_quantile(": "normal_quantile", "share_weights(": "share_weights"}
}


@dataclass(frozen=True)
class Skeleton:
    """A class that could not be translated: what stopped it, and where Hugging Face has it."""

    name: str
    path: str
    reason: str


@dataclass(frozen=True)
class ClassText:
    """One class as text, with what it needs around it: imports of `trtllm_port.layers`, config keys.

    Attributes:
        deciding: config keys that conditions use.
    """

    name: str
    lines: list[str]
    imports: set[str]
    fields: set[str]
    deciding: set[str]
    skeleton: Skeleton | None = None


def what_stops(classes: Iterable[ClassText]) -> set[tuple[str, str]]:
    """The paths of classes that could not be translated, with the reasons up to their first number: sizes differ."""
    stopped = (text.skeleton for text in classes if text.skeleton is not None)
    return {(skeleton.path, re.split(r"\d", skeleton.reason)[0]) for skeleton in stopped}


def same_classes(some: Sequence[ClassText], others: Sequence[ClassText]) -> bool:
    """Whether classes compute the same; those that could not be translated, as far as they were.

    Why they were not tells numbers of the traces, which are others with each trace more.
    """
    lines, other_lines = ([text.lines[:-1] if text.skeleton else text.lines for text in one] for one in (some, others))
    return lines == other_lines and what_stops(some) == what_stops(others)


class ClassWriter:
    """Writes the classes of one port, inner ones first.

    Args:
        samples: the lowered traces.
        config_class: name of the port's config class.
    """

    def __init__(self, samples: list[Lowered], config_class: str) -> None:
        self.samples = samples
        self.config_class = config_class
        self.constructors: dict[str, Constructor] = {}
        names = ("cache", "input_ids", "position_ids")
        self.preferred = {sample.trace.inputs[name]: name for sample in samples for name in names}
        self.preferred |= {sample.logits_indices: "logits_indices" for sample in samples}
        self.common = {value: name for sample in samples for value, name in _common_names(sample).items()}
        self.common |= {value: "cache" for sample in samples for value in sample.caches}

    def write(self, port_class: PortClass, *, is_model: bool) -> ClassText:
        """The text of a class whose sub-modules' classes are written already.

        Raises:
            NotExpressible: a size of a parameter follows from nothing in the config.
        """
        scope = Scope(port_class)
        body, skeleton = self._body(port_class, scope)
        forward = self._forward(port_class, body, skeleton, is_model=is_model)
        writer = ConstructorWriter(port_class, scope, self.config_class, self.constructors)
        parameters = sorted({*(body.printer.parameters if body is not None else ()), *port_class.lent})
        tied = tied_parameters(self.samples, scope) if is_model else []
        constructor = writer.write(forward, parameters, tied, is_model=is_model)
        constructor.lines, forward = SubexpressionNames(scope).write(constructor.lines, forward)
        self.constructors[port_class.name] = constructor
        in_order = any(path.partition(".")[0].isdigit() for path in port_class.children)  # its modules have numbers
        base = "DecoderModelForCausalLM" if is_model else "ModuleList" if in_order else "Module"
        imports = {base, "Tensor", *constructor.imports, *(body.printer.functions if body is not None else ())}
        text = "\n".join([*constructor.lines, *forward])
        imports |= {name for mark, name in MENTIONED.items() if mark in text}
        variables = indent(self._class_variables()) if is_model else []
        lines = [
            f"class {require_name(port_class.name, 'a class')}({base}):",
            *variables,
            *indent(constructor.lines),
            "",
            *indent(forward),
        ]
        return ClassText(port_class.name, lines, imports, scope.fields | constructor.fields, scope.deciding, skeleton)

    def _class_variables(self) -> list[str]:
        prefix = getattr(self.samples[0].trace.model, "base_model_prefix", "model")
        lines = [f"config_class = {self.config_class}", "weight_map = WEIGHT_MAP"]
        if prefix != "model":
            lines.append(f"base_model_prefix = {literal(prefix)}")
        return [*lines, ""]

    def _body(self, port_class: PortClass, scope: Scope) -> tuple[Body | None, Skeleton | None]:
        try:
            if port_class.block.host_reads:
                raise DependsOnData(", ".join(port_class.block.host_reads))
            return ForwardWriter(scope, self.preferred, self.common, RESERVED).write(port_class.block), None
        except (Untranslated, NotExpressible, DependsOnData) as reason:
            return None, Skeleton(port_class.name, port_class.block.path, str(reason))

    def _forward(
        self, port_class: PortClass, body: Body | None, skeleton: Skeleton | None, *, is_model: bool
    ) -> list[str]:
        names = list(MODEL_INPUTS)
        if not is_model:
            inputs = enumerate(port_class.block.inputs)
            names = body.parameters if body else [self._name(value, f"x{i}") for i, value in inputs]
        optional = [key in port_class.block.optional for key in port_class.block.keys]
        kinds = ["Tensor | None" if one else "Tensor" for one in optional] if not is_model else ["Tensor"] * len(names)
        pairs = zip(names, kinds, strict=True)
        taken = ["self", *(f"{name}: {'KVCache' if name == 'cache' else kind}" for name, kind in pairs)]
        count = len(port_class.block.outputs)
        returns = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
        signature = f"def forward({', '.join(taken)}) -> {returns}:"
        if body is not None:
            return [signature, *indent(body.lines)]
        assert skeleton is not None  # it has no body for a reason
        message = literal(f"{port_class.name}.forward: {skeleton.reason}")
        return [
            signature,
            "    # TODO: translate this by hand; the message says where Hugging Face has it",
            f"    raise NotImplementedError({message})",
        ]

    def _name(self, value: Value, fallback: str) -> str:
        return self.preferred.get(value) or self.common.get(value) or fallback


def _common_names(sample: Lowered) -> dict[Value, str]:
    """value → the name that it has most often, over all classes."""
    counts: dict[Value, Counter[str]] = {}
    for block in sample.blocks:
        for value, names in block.names.items():
            counts.setdefault(value, Counter()).update(
                name for name in names if name not in RESERVED and name != "_" and not name.endswith("[]")
            )
    return {value: counter.most_common(1)[0][0] for value, counter in counts.items() if counter}
