"""How a checkpoint says it is quantized, and by which rule each module path is one of its quantized ones.

Every method has its own rule for lists of modules; `Names` has them all: compressed-tensors `utils/match.py`,
transformers `quantizers/quantizers_utils.py`, modelopt `torch/export` (fnmatch), gptqmodel `quantization/config.py`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from trtllm_port.layers.quantization.layouts.settings import Expression, Settings
from trtllm_port.layers.quantization.layouts.weight import ActivationScheme, Kind

WHOLE = 0  # as a side of a block: all of the axis
PER_TENSOR, PER_CHANNEL = (WHOLE, WHOLE), (1, WHOLE)


@dataclass(frozen=True, kw_only=True)
class ModuleScheme:
    """How a module is quantized, as far as the config says.

    Attributes:
        layout: the name of the one that reads its tensors.
        kind: of the codes.
        block: rows and columns that share a scale, WHOLE for all; None: what the scale's shape says.
        symmetric: there are no zero points.
        activation: how the input is quantized; None: it is not.
    """

    layout: str
    kind: Kind
    block: tuple[int, int] | None
    symmetric: bool = True
    activation: ActivationScheme | None = None


@dataclass(frozen=True)
class Names:
    """Which module paths a list means.

    Attributes:
        exact: these.
        starts: those at whose start one of these matches.
        ends: those that end with one of these.
        every: all of them: a class of modules is named, and a checkpoint does not say of which class a module is.
    """

    exact: frozenset[str] = frozenset()
    starts: tuple[Expression, ...] = ()
    ends: tuple[str, ...] = ()
    every: bool = False

    def mean(self, module: str) -> bool:
        """Whether a module is one of them."""
        return (
            self.every
            or module in self.exact
            or module.endswith(self.ends)
            or any(expression.matches(module) for expression in self.starts)
        )


@dataclass(frozen=True)
class Target:
    """Modules that are quantized alike; None: not at all. `by_name`: the config names them, not only their class."""

    names: Names
    scheme: ModuleScheme | None
    by_name: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizationScheme:
    """What a config says of all modules.

    Attributes:
        method: its name, as in `quant_method`.
        targets: the first that means a module says how that is quantized.
        ignored: modules that are not quantized, whatever the targets say.
        kv_cache: in a word, how the KV cache is quantized; None: it is not.
        unread: keys of the config that are not known here.
    """

    method: str
    targets: tuple[Target, ...]
    ignored: Names = Names()
    kv_cache: str | None = None
    unread: tuple[str, ...] = ()

    def target(self, module: str) -> Target | None:
        """What the config says of a module path; None: it is not quantized."""
        if self.ignored.mean(module):
            return None
        found = next((target for target in self.targets if target.names.mean(module)), None)
        return None if found is None or found.scheme is None else found

    def of(self, module: str) -> ModuleScheme | None:
        """How a module path is quantized; None: it is not."""
        target = self.target(module)
        return None if target is None else target.scheme


EVERY = Names(every=True)


def as_transformers(settings: Settings, *keys: str) -> Names:
    """The first list of these keys, by transformers' `should_convert_module`: at a start up to a dot, or at an end."""
    key = next((each for each in keys if settings.get(each) is not None), keys[0])
    texts = settings.texts(key)
    return Names(starts=settings.patterns(key, texts, r"(?:{})(?:(?<=\.)|(?=\.|$))"), ends=texts)


def as_compressed_tensors(settings: Settings, key: str, texts: Sequence[str]) -> Names:
    """`re:` and a regular expression for the start, else the whole name or a class's."""
    expressions = [text.removeprefix("re:") for text in texts if text.startswith("re:")]
    whole = frozenset(text for text in texts if not text.startswith("re:"))
    return Names(exact=whole, starts=settings.patterns(key, expressions))


def as_globs(texts: Sequence[str]) -> Names:
    """`fnmatch` patterns for the whole name."""
    plain = frozenset(text for text in texts if not set("*?[") & set(text))
    globs = tuple(Expression(fnmatch.translate(text)) for text in texts if text not in plain)
    return Names(exact=plain, starts=globs)
