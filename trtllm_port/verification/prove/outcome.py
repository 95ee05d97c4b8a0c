"""What became of each bug, and of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One bug.

    Attributes:
        bug, kind, description: of the catalogue.
        change: what was edited; "" where the bug does not fit the port.
        status: "caught", "missed", "not exercised" (it changes nothing that this stimulus shows), or "no place" (the
            port has nothing that it fits).
        reason: why, of the last two.
        gate: the first failing gate.
        module: where the checker says that the port first differs; "" is the model itself.
        expected: where it may say so.
        cause, cause_status: the first cause that it names, and how sure it is.
        causes: the ids that are right.
        seconds: taken.
    """

    bug: str
    kind: str
    description: str
    change: str = ""
    status: str
    reason: str = ""
    gate: str | None = None
    module: str | None = None
    expected: tuple[str, ...] = ()
    cause: str | None = None
    cause_status: str | None = None
    causes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exercised(self) -> bool:
        """Whether it counts."""
        return self.status in ("caught", "missed")

    @property
    def caught(self) -> bool:
        """Whether the checker's verdict was fail."""
        return self.status == "caught"

    @property
    def placed(self) -> bool:
        """Whether the right module was named."""
        return self.caught and self.module in self.expected

    @property
    def explained(self) -> bool:
        """Whether the right cause was named first."""
        return self.caught and self.cause in self.causes

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        flags = {"placed": self.placed, "explained": self.explained} if self.exercised else {}
        return asdict(self) | flags

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Read what `to_dict` wrote."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**known | {name: tuple(known[name]) for name in ("expected", "causes")})


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What `verify --prove` found.

    Attributes:
        architecture, port, dtype: what was proven.
        tokens: length of the prompt.
        executor: what ran the port.
        outcomes: one per bug, in the order of the catalogue.
        seconds: altogether.
        quantization: how the port's weights are quantized; "": they are not.
    """

    architecture: str
    port: str
    dtype: str
    tokens: int
    executor: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    quantization: str = ""

    @property
    def exercised(self) -> tuple[Outcome, ...]:
        """The bugs that count."""
        return tuple(outcome for outcome in self.outcomes if outcome.exercised)

    @property
    def name(self) -> str:
        """The architecture, and how it is quantized."""
        return f"{self.architecture} {self.quantization}".strip()

    @property
    def exit_code(self) -> int:
        """0 if bugs were exercised and every one of them was caught, else 1."""
        return 0 if self.exercised and all(outcome.caught for outcome in self.exercised) else 1

    @property
    def summary(self) -> str:
        """One sentence."""
        counted = self.exercised
        return (
            f"{count(counted, 'caught')} of {len(counted)} bugs caught, "
            f"{count(counted, 'placed')} at the right module, {count(counted, 'explained')} with the right cause first"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        counted = self.exercised
        return {
            "kind": "prove",
            "architecture": self.architecture,
            "port": self.port,
            "quantization": self.quantization,
            "dtype": self.dtype,
            "tokens": self.tokens,
            "executor": self.executor,
            "summary": self.summary,
            "exercised": len(counted),
            **{name: count(counted, name) for name in ("caught", "placed", "explained")},
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
            "seconds": self.seconds,
        }


def count(outcomes: Sequence[Outcome], name: str) -> int:
    """Count the outcomes that are `caught`, `placed` or `explained`."""
    return sum(bool(getattr(outcome, name)) for outcome in outcomes)
