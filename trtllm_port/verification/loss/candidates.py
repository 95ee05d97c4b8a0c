"""What can be left unquantized without anything else: modules, together where one holds what another's weights make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from trtllm_port.verification.loss.parts import Held


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Modules that are quantized together, or none of them.

    Attributes:
        modules: their names.
        weights: of the checkpoint.
        bytes: what the weights take in the checkpoint, quantized.
        plain_bytes: what they take unquantized.
        parameters: of Hugging Face's model, which hold the weights.
    """

    modules: tuple[str, ...]
    weights: tuple[str, ...]
    bytes: int
    plain_bytes: int
    parameters: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The modules, in one string."""
        return ", ".join(self.modules)

    @property
    def cost(self) -> int:
        """The bytes that leaving them unquantized costs."""
        return self.plain_bytes - self.bytes


def placed(candidates: Iterable[Candidate], original: nn.Module, quantized: nn.Module) -> list[Candidate]:
    """Find the parameters of candidates, and put those together that share a module or a parameter.

    Args:
        candidates: without parameters.
        original, quantized: Hugging Face's model with either weights.
    """
    given = list(candidates)
    held = Held(original, quantized, [name for each in given for name in each.weights])
    found: list[Candidate] = []
    for each in given:
        whole = _joined([each], frozenset(name for weight in each.weights for name in held.find(weight)[1]))
        touching = [other for other in found if _touch(other, whole)]
        found = [other for other in found if other not in touching]
        found.append(_joined([*touching, whole]))
    return found


def _touch(one: Candidate, other: Candidate) -> bool:
    return bool(one.parameters & other.parameters) or not set(one.modules).isdisjoint(other.modules)


def _joined(parts: list[Candidate], parameters: frozenset[str] = frozenset()) -> Candidate:
    return Candidate(
        modules=tuple(dict.fromkeys(module for part in parts for module in part.modules)),
        weights=tuple(weight for part in parts for weight in part.weights),
        bytes=sum(part.bytes for part in parts),
        plain_bytes=sum(part.plain_bytes for part in parts),
        parameters=parameters.union(*(part.parameters for part in parts)),
    )
