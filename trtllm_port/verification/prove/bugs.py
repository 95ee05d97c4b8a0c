"""What a bug is: an edit of a port's source, or of its converted weights, and what the checker must say to it.

Nothing here edits the checker, or Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trtllm_port.layers.quantization import CheckpointWeights, Grid
from trtllm_port.verification.prove.source_edits import Change, Edited, attention_classes, edit
from trtllm_port.verification.taps.names import module_of

Weights = dict[str, Tensor]
Requantize = Callable[[CheckpointWeights], Mapping[str, Grid]]
"""From a checkpoint's parameters to the codes and scales that some of them take instead."""


@dataclass(frozen=True, kw_only=True)
class SoundPort:
    """The sound port that bugs are put into.

    Attributes:
        source: its `model.py`.
        weights: its parameters in float32, quantized ones dequantized.
        stored: its parameters as a float32 checkpoint keeps them; None: none is quantized.
        config: Hugging Face's config of the language model.
        classes: Hugging Face's class of every module.
        order: Hugging Face's modules in the order in which they complete.
        tokens: length of the prompt.
    """

    source: str = field(repr=False)
    weights: Mapping[str, Tensor] = field(repr=False)
    stored: CheckpointWeights | None = field(default=None, repr=False)
    config: Mapping[str, Any] = field(repr=False)
    classes: Mapping[str, str] = field(repr=False)
    order: tuple[str, ...] = field(repr=False)
    tokens: int

    def first(self, class_name: str, attribute: str = "") -> tuple[str, ...]:
        """Return the module of a class that runs first, or what it holds as an attribute."""
        owners = [path for path in self.order if self.classes.get(path) == class_name] or [""]
        return (".".join(part for part in (owners[0], attribute) if part),)

    @property
    def quantized(self) -> frozenset[str]:
        """The parameters that are quantized."""
        return frozenset() if self.stored is None else frozenset(self.stored.quantized_names())

    def holder(self, parameter: str) -> str:
        """Return the module that a parameter is in, or of those around it the first that Hugging Face calls."""
        path = parameter.rpartition(".")[0]
        while path and path not in self.order:
            path = path.rpartition(".")[0]
        return path

    def all_of(self, class_name: str) -> tuple[str, ...]:
        """Return all modules of a class."""
        return tuple(path for path in self.order if self.classes.get(path) == class_name)


@dataclass(frozen=True, kw_only=True)
class Injection:
    """A bug that was put into a port.

    Attributes:
        change: what was changed, before and after.
        modules: where the checker may say that the port first differs.
        source: the changed `model.py`, or None.
        weights: parameters that take another value; no quantized ones.
        quantized: gives parameters other codes and scales.
    """

    change: str
    modules: tuple[str, ...]
    source: str | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    quantized: Requantize | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Bug:
    """One entry of the catalogue.

    Attributes:
        id: its name.
        kind: "source", "weights" or "quantized".
        description: the mistake, as a person would make it.
        causes: ids of the causes that name it; the first named cause must be among them.
        inject: puts it into a port; None where the port has nothing that it fits.
    """

    id: str
    kind: str
    description: str
    causes: tuple[str, ...]
    inject: Callable[[SoundPort], Injection | None]


Where = Callable[[SoundPort, Edited], tuple[str, ...]]


def at_owner(port: SoundPort, edited: Edited) -> tuple[str, ...]:
    """The class that was edited."""
    return port.first(edited.spot.class_name)


def at_attribute(port: SoundPort, edited: Edited) -> tuple[str, ...]:
    """The part that the edited statement makes."""
    return port.first(edited.spot.class_name, edited.spot.attribute)


def at_called(port: SoundPort, edited: Edited) -> tuple[str, ...]:
    """A part that the edited statement calls, or the class itself."""
    parts = (port.first(edited.spot.class_name, name)[0] for name in edited.called)
    return (*parts, *port.first(edited.spot.class_name))


def at_attention(port: SoundPort, edited: Edited) -> tuple[str, ...]:
    """Any module that computes attention: a mask shows there, and only where it matters."""
    return tuple(path for name in attention_classes(port.source) for path in port.all_of(name))


def source_bug(
    name: str, description: str, causes: str, change: Change, where: Where = at_owner, *, skip: int = 0
) -> Bug:
    """A bug that is an edit of `model.py`."""

    def inject(port: SoundPort) -> Injection | None:
        edited = edit(port.source, change, skip=skip)
        if edited is None:
            return None
        after = edited.after or "deleted"
        return Injection(
            change=f"{edited.spot.class_name}: `{edited.before}` → `{after}`",
            modules=where(port, edited),
            source=edited.text,
        )

    return Bug(id=name, kind="source", description=description, causes=tuple(causes.split()), inject=inject)


def weight_bug(
    name: str,
    description: str,
    causes: str,
    change: Callable[[SoundPort], Weights | None],
    also: Callable[[SoundPort], tuple[str, ...]] = lambda port: (),
) -> Bug:
    """A bug that changes parameters; the first of them names the module, and `also` those that have it, too.

    It has no place in quantized ones: their bugs are those of codes and scales.
    """

    def inject(port: SoundPort) -> Injection | None:
        changed = change(port)
        if not changed or changed.keys() & port.quantized:
            return None
        modules = sorted({port.holder(name) for name in changed}, key=port.order.index)
        return Injection(
            change=", ".join(f"`{name}`" for name in changed), modules=(*modules[:1], *also(port)), weights=changed
        )

    return Bug(id=name, kind="weights", description=description, causes=tuple(causes.split()), inject=inject)


def modules_in_order(taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules of taps, each once."""
    return tuple(dict.fromkeys(module_of(tap) for tap in taps))
