"""What became of a model type: of the way from its config to an engine, or of what was asked of it beyond that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from coverage_types import family_of
from coverage_warnings import told

PASSES, NO_ENGINE, DIFFERS, INCOMPLETE, REFUSED, DEFECT = STATUSES = (
    *("passes", "no engine", "differs"),
    *("incomplete", "refused", "defect"),
)


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """What became of one model type.

    Attributes:
        model_type: as in `config.json`.
        seconds: of processor time, which other processes do not stretch.
        warnings: per data type that was verified, see `coverage_warnings`.
    """

    model_type: str
    seconds: float = 0.0
    warnings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    @abstractmethod
    def broken(cls, model_type: str, problem: str, seconds: float) -> Self:
        """The row of a type whose process ended without one."""

    @property
    @abstractmethod
    def passes(self) -> bool:
        """Whether nothing fell short."""

    @abstractmethod
    def outcome(self) -> str:
        """What became of the type, in words."""

    def told(self) -> str:
        """One line about the row."""
        return self.outcome() + (f"; warnings: {told(self.warnings)}" if self.warnings else "")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; what every row has is at its ends."""
        values = asdict(self)
        last = {name: values.pop(name) for name in ("seconds", "warnings")}
        return values | last


@dataclass(frozen=True, kw_only=True)
class TableRow(Row):
    """What became of the way from its config to an engine.

    Attributes:
        family: see `model_types.toml`.
        status: one of `STATUSES`.
        stage: where it fell short: "config", "new", "verify float32", "verify bfloat16" or "engine"; "" if nowhere.
        reason: why, in the error's own words; "" if it passes.
        lines: of `model.py`.
        longest_class: lines of its longest class.
        ratio: the largest error of any tap in bfloat16, in units of Hugging Face's own error there.
    """

    family: str
    status: str
    stage: str = ""
    reason: str = ""
    lines: int | None = None
    longest_class: int | None = None
    ratio: float | None = None

    @classmethod
    def broken(cls, model_type: str, problem: str, seconds: float) -> Self:
        return cls(
            model_type=model_type,
            family=family_of(model_type),
            status=DEFECT,
            stage="process",
            reason=problem,
            seconds=seconds,
        )

    @property
    def passes(self) -> bool:
        return self.status == PASSES

    def outcome(self) -> str:
        return f"{self.status} {self.stage}: {self.reason}" if self.reason else self.status


@dataclass(frozen=True, kw_only=True)
class BeyondRow(Row):
    """What became of a type that passes: in float16, and with another combination of options.

    Attributes:
        float16: the verdict of `verify` in float16, or why there is none.
        options: what the other config had set at random.
        combination: what became of that one: as a row's `status`, with the reason.
        invalid: how many combinations were drawn before that with which Hugging Face's own model does not run.
        others: how many configs drawn at random came out right, were refused by a key's name, or differ.
        others_differ: those that differ without a word, in words.
    """

    float16: str = ""
    options: dict[str, Any] | None = None
    combination: str = ""
    invalid: int = 0
    others: dict[str, int] = field(default_factory=dict)
    others_differ: list[str] = field(default_factory=list)

    @classmethod
    def broken(cls, model_type: str, problem: str, seconds: float) -> Self:
        told = f"{DEFECT}: {problem}"
        return cls(model_type=model_type, float16=told, combination=told, seconds=seconds)

    @property
    def passes(self) -> bool:
        return self.combination == PASSES and not self.others_differ

    def outcome(self) -> str:
        others = f"; other configs: {self.others}" if self.others else ""
        differ = "".join(f"; DIFFERS: {each}" for each in self.others_differ)
        return f"float16 {self.float16}; another combination: {self.combination}{others}{differ}"
