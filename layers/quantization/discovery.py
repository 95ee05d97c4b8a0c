"""Which tensors of a checkpoint make up quantized weights: what it holds decides, and may not contradict its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trtllm_port.layers.quantization.layouts.layout import Form, Layout, Unit, in_module
from trtllm_port.layers.quantization.layouts.scheme import QuantizationScheme
from trtllm_port.layers.weights import TensorSource

#: Of an 8-bit KV cache and of quantized outputs: no part of a weight, and nothing that the unquantized model has.
LEFT_OUT = frozenset(
    (
        *("k_scale", "v_scale", "q_scale", "kv_scale", "k_zero_point", "v_zero_point", "q_zero_point"),
        *("k_global_scale", "v_global_scale", "q_global_scale", "output_scale", "output_zero_point"),
    )
)
PLAIN = frozenset(("float64", "float32", "float16", "bfloat16", "int64", "bool"))


@dataclass
class Findings:
    """What a checkpoint holds.

    Attributes:
        units: its quantized weights.
        names: the unquantized model's, in the order of the checkpoint.
        left_out: tensors of neither.
        problems: what does not fit together.
    """

    units: list[Unit] = field(default_factory=list)
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def find_units(source: TensorSource, scheme: QuantizationScheme, layouts: Mapping[str, Layout]) -> Findings:
    """Sort a checkpoint's tensors into quantized weights, others, and those that are left out."""
    stored = list(source.names())
    modules: dict[str, set[str]] = {}
    for name in stored:
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, set()).add(leaf)
    finder = _Finder(source, scheme, layouts)
    for module, leaves in modules.items():
        finder.search(module, leaves)
    return finder.findings(stored)


class _Finder:
    def __init__(self, source: TensorSource, scheme: QuantizationScheme, layouts: Mapping[str, Layout]) -> None:
        self.source, self.scheme, self.layouts = source, scheme, layouts
        self.units: list[Unit] = []
        self.problems: list[str] = []
        self.forms = {form.codes: form for layout in layouts.values() for form in layout.forms}
        self.telling = {name for layout in layouts.values() for form in layout.forms for name in form.telling()}

    def search(self, module: str, leaves: set[str]) -> None:
        """Find the quantized weights of one module."""
        claimed: set[str] = set()
        for codes, form in self.forms.items():
            if codes in leaves and (codes != form.parameter or self.narrow(module, codes)):
                claimed |= self.take(module, form, leaves)
        rest = sorted(self.telling & leaves - claimed)
        target = self.scheme.target(module) if rest or "weight" in leaves else None
        if rest:
            names = ", ".join(f"`{in_module(module, leaf)}`" for leaf in rest)
            self.problems.append(f"`{module}` has {names}, but no quantized weight that they belong to")
        elif target is not None and target.by_name and not claimed and self.matrix(module, leaves):
            weight = in_module(module, "weight")
            self.problems.append(f"`{weight}` is not quantized, though the config names the module")

    def take(self, module: str, form: Form, leaves: set[str]) -> set[str]:
        """Make a unit of a module's codes; the names that belong to it."""
        scheme, codes = self.scheme.of(module), in_module(module, form.codes)
        if scheme is None:
            self.problems.append(f"`{codes}` is quantized, though the config leaves the module out")
            return {form.codes, *form.telling(), *form.generic}
        forms = {own.codes: own for own in self.layouts[scheme.layout].forms}
        if form.codes not in forms:
            expected = " or ".join(f"`{in_module(module, name)}`" for name in forms)
            self.problems.append(f"`{codes}` is there, but by the config it should be {expected}")
            return {form.codes, *form.telling(), *form.generic}
        form = forms[form.codes]
        roles = {role: next((n for n in names if n in leaves), None) for role, names in form.parts.items()}
        parts = {role: leaf for role, leaf in roles.items() if leaf is not None}
        tensors = {"codes": codes, **{role: in_module(module, leaf) for role, leaf in parts.items()}}
        self.units.append(Unit(module, form, tensors, scheme, self.source))
        if form.parameter != form.codes and form.parameter in leaves:
            self.problems.append(f"`{in_module(module, form.parameter)}` is there as well as `{codes}`")
        return {form.codes, *parts.values()}

    def narrow(self, module: str, leaf: str) -> bool:
        """Whether a tensor of a plain weight's name holds codes."""
        return self.source.dtype(in_module(module, leaf)) not in PLAIN

    def matrix(self, module: str, leaves: set[str]) -> bool:
        return "weight" in leaves and len(self.source.shape(in_module(module, "weight"))) == 2

    def findings(self, stored: list[str]) -> Findings:
        """All of it, with the names in the order of the checkpoint."""
        parameters = {unit.tensors["codes"]: unit.name for unit in self.units}
        parts = {name for unit in self.units for name in unit.tensors.values()}
        left_out = tuple(name for name in stored if name not in parts and name.rpartition(".")[2] in LEFT_OUT)
        hidden = (parts - parameters.keys()) | set(left_out)
        names = tuple(parameters.get(name, name) for name in stored if name not in hidden)
        problems = [*self.problems, *self.unread_codes(name for name in names if name not in parameters.values())]
        if not self.units and not problems and self.scheme.targets:
            problems.append(f"no weight is quantized, though the config says that they are by {self.scheme.method}")
        return Findings(self.units, names, left_out, problems)

    def unread_codes(self, names: Iterator[str]) -> Iterator[str]:
        """Tensors that would pass for weights, but are 8-bit codes of something that is not read."""
        for name in names:
            if self.source.dtype(name).startswith(("float8", "F8", "F4", "F6")):
                yield f"`{name}` is {self.source.dtype(name)}, but has no scale that is known here"
