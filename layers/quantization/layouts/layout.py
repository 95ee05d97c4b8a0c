"""A layout: which tensors make up one quantized weight, what they must be like, and how they become the canonical form.

Checks come in two steps: those of headers need no data; those of values read the scales and the like, not the codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from trtllm_port.errors import CheckpointError
from trtllm_port.layers.quantization.layouts.scheme import WHOLE, ModuleScheme
from trtllm_port.layers.quantization.layouts.weight import Kind, QuantizedWeight
from trtllm_port.layers.weights import TensorSource

FLOATS = ("float32", "float16", "bfloat16")
POWERS = ("uint8", "float8_e8m0fnu")
#: parts whose values are factors: finite and above zero
FACTORS = ("scale", "global_scale", "input_scale", "input_global_scale", "pre_scale")
WRONG = "its quantized weights cannot be read; fetch it again, or tell whoever made it"


def in_module(module: str, name: str) -> str:
    """The full name of a module's tensor."""
    return f"{module}.{name}" if module else name


def refuse(problems: list[str], hint: str = WRONG) -> None:
    """One CheckpointError with all of them, if there are any."""
    if problems:
        raise CheckpointError("; ".join(sorted(set(problems))), hint=hint)


@dataclass(frozen=True)
class Form:
    """Names of one weight's tensors in its module.

    Attributes:
        parameter: of the unquantized model.
        codes: the tensor with the codes.
        parts: role → names, of which a checkpoint has one.
        generic: names that other tensors have, too.
    """

    parameter: str
    codes: str
    parts: Mapping[str, tuple[str, ...]]
    generic: frozenset[str] = frozenset()

    def telling(self) -> frozenset[str]:
        """Names that nothing but a quantized weight has."""
        return frozenset(name for names in self.parts.values() for name in names) - self.generic


@dataclass(frozen=True)
class Unit:
    """One quantized weight in a checkpoint.

    Attributes:
        module: its path.
        form: the names of its tensors.
        tensors: role ("codes" or one of the form's parts) → full name.
        scheme: what the config says.
        source: where the tensors are.
    """

    module: str
    form: Form
    tensors: Mapping[str, str]
    scheme: ModuleScheme
    source: TensorSource

    @property
    def name(self) -> str:
        """The unquantized model's parameter."""
        return in_module(self.module, self.form.parameter)

    def has(self, role: str) -> bool:
        return role in self.tensors

    def shape(self, role: str = "codes") -> tuple[int, ...]:
        return self.source.shape(self.tensors[role])

    def dtype(self, role: str = "codes") -> str:
        return self.source.dtype(self.tensors[role])

    def tensor(self, role: str = "codes") -> torch.Tensor:
        return self.source.tensor(self.tensors[role])

    def expect(self, role: str, dtypes: tuple[str, ...], *shapes: tuple[int, ...]) -> Iterator[str]:
        """What is wrong with a part that may not be there, by its header; without shapes, any will do."""
        if not self.has(role):
            return
        name = self.tensors[role]
        if self.dtype(role) not in dtypes:
            yield f"`{name}` is {self.dtype(role)}, expected {' or '.join(dtypes)}"
        if shapes and self.shape(role) not in shapes:
            yield f"`{name}` has shape {self.shape(role)}, expected {' or '.join(map(str, dict.fromkeys(shapes)))}"

    def need(self, *roles: str) -> Iterator[str]:
        """Parts that are missing."""
        for role in roles:
            if not self.has(role):
                names = (f"`{in_module(self.module, name)}`" for name in self.form.parts[role])
                yield f"{' or '.join(names)} is missing beside `{self.tensors['codes']}`"


class Layout:
    """How the tensors of a weight are laid out. Each subclass says what it reads, and its formula."""

    #: the names that weights of this layout have
    forms: tuple[Form, ...] = ()

    def kind(self, unit: Unit) -> Kind:
        """Of the codes."""
        return unit.scheme.kind

    def header(self, unit: Unit) -> Iterator[str]:
        """What is wrong by the headers."""
        raise NotImplementedError

    def shape(self, unit: Unit) -> tuple[int, ...]:
        """[..., N, K] of the codes, of a unit whose header is right."""
        raise NotImplementedError

    def read(self, unit: Unit) -> QuantizedWeight:
        """The canonical form, of a unit whose header is right and whose values are."""
        raise NotImplementedError

    def parameter_shape(self, unit: Unit) -> tuple[int, ...]:
        """Of the unquantized model's parameter."""
        return self.shape(unit)

    def block(self, unit: Unit) -> tuple[int, int]:
        """Rows and columns that share a scale, WHOLE resolved."""
        rows, columns = self.shape(unit)[-2:]
        high, wide = unit.scheme.block or (WHOLE, WHOLE)
        return high or rows, wide or columns

    def values(self, unit: Unit) -> Iterator[str]:
        """What is wrong with the values of scales and the like, of a unit whose header is right."""
        for role in FACTORS:
            if unit.has(role) and (wrong := wrong_factors(unit.tensor(role))):
                yield f"`{unit.tensors[role]}` has {wrong}"


def wrong_factors(tensor: torch.Tensor) -> str | None:
    """What no scale may be: NaN, infinite, zero, negative. Bytes are powers of two, 255 NaN."""
    if tensor.dtype == torch.uint8:
        return "NaN (255)" if bool((tensor == 255).any()) else None
    values = tensor.to(torch.float32)
    if bool(values.isnan().any()):
        return "NaN"
    if bool(values.isinf().any()):
        return "infinite values"
    if bool((values <= 0).any()):
        return "zeros" if bool((values == 0).any()) else "negative values"
    return None


def grid(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """[..., n, k]: how many blocks a weight of [..., N, K] has; the last of an axis may be smaller."""
    *stacked, rows, columns = shape
    return *stacked, up(rows, block[0] or rows or 1), up(columns, block[1] or columns or 1)


def up(size: int, part: int) -> int:
    """How many parts hold it, the last perhaps not full."""
    return -(-size // part)


def undivided(unit: Unit, columns: int, group: int) -> Iterator[str]:
    """A group size that does not divide the columns."""
    if group != WHOLE and columns % group:
        yield f"`{unit.tensors['codes']}` has {columns} columns, which groups of {group} do not divide"


def factor(tensor: torch.Tensor) -> torch.Tensor:
    """[], float64: a stored number of one element."""
    return tensor.reshape(()).to(torch.float64)


def powers(scale: torch.Tensor) -> torch.Tensor:
    """Scales as stored; bytes are exponents: float8_e8m0fnu with the same bits."""
    return scale.view(torch.float8_e8m0fnu) if scale.dtype == torch.uint8 else scale
