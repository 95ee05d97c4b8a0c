"""How much a quantization may cost, as a user writes it: `kl<0.01`, `top1>0.95` or `perplexity<1.01`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from trtllm_port.errors import ConfigError

Measure = Literal["kl", "top1", "perplexity"]
WRITTEN = re.compile(r"\s*(?P<measure>\w+)\s*(?P<sign>[<>])\s*(?P<limit>[-+.\w]+)\s*", re.ASCII)
#: Of each measure: the side on which a bound lies, what the model reaches with no weight quantized, and what it is.
SIGNS: dict[Measure, str] = {"kl": "<", "top1": ">", "perplexity": "<"}
UNQUANTIZED: dict[Measure, float] = {"kl": 0.0, "top1": 1.0, "perplexity": 1.0}
MEANINGS: dict[Measure, str] = {
    "kl": "the mean KL divergence, 0 where nothing is quantized",
    "top1": "the share of tokens with the same best next one, 1 where nothing is quantized",
    "perplexity": "the quantized model's perplexity over the original's, 1 where nothing is quantized",
}
HINT = "one of `kl<0.01`, `top1>0.95` and `perplexity<1.01`"


@dataclass(frozen=True)
class LossBound:
    """A bound that a model meets at least with no weight quantized.

    Attributes:
        measure: of `verify`'s loss: the mean KL, the agreement of the best tokens, the ratio of perplexities.
        limit: it must be below this, of `top1` above.
    """

    measure: Measure
    limit: float

    @classmethod
    def parse(cls, text: str) -> LossBound:
        """Read `kl<0.01` and the like.

        Raises:
            ConfigError: it is nothing of that form, or cannot be met.
        """
        found = WRITTEN.fullmatch(text)
        measure = next((name for name in get_args(Measure) if found is not None and found["measure"] == name), None)
        if found is None or measure is None:
            raise ConfigError(f"`{text}` is no bound of a loss", hint=HINT)
        try:
            limit = float(found["limit"])
        except ValueError:
            limit = math.nan
        if not math.isfinite(limit):
            raise ConfigError(f"`{text}` has no number as its limit", hint=HINT)
        if found["sign"] != SIGNS[measure]:
            raise ConfigError(f"`{text}` bounds {measure} on the side where nothing is lost", hint=HINT)
        bound = cls(measure, limit)
        if not bound.is_met(UNQUANTIZED[measure]):
            raise ConfigError(f"`{text}` cannot be met: {measure} is {MEANINGS[measure]}", hint=HINT)
        return bound

    def __str__(self) -> str:
        return f"{self.measure}{SIGNS[self.measure]}{self.limit:g}"

    def is_met(self, value: float) -> bool:
        """Whether a value of the measure is within; NaN is not."""
        return value > self.limit if self.measure == "top1" else value < self.limit

    def distance(self, value: float) -> float:
        """How far a value of the measure is from what the unquantized model has, towards the limit."""
        return (value - UNQUANTIZED[self.measure]) * (-1.0 if self.measure == "top1" else 1.0)
