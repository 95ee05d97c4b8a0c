"""Which modules to leave unquantized so that a loss keeps to a bound: a set from which no module can be taken away.

The order is by what a module costs alone, for each byte that leaving it takes; as many of the first ones as it needs
are chosen by bisection, and what turns out not to be needed is quantized again. Every set is measured on all tokens.
It need not be the smallest of all sets, of which there are too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.loss.candidates import Candidate, placed
from trtllm_port.verification.loss.measure import Pair, Runs, batches_of, load_both, run_both, spread_over
from trtllm_port.verification.loss.parts import Parts
from trtllm_port.verification.loss.shares import measure_shares, replaced
from trtllm_port.verification.loss.windows import Windows
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.stimulus.loss_bound import LossBound, Measure

REMEMBERED_BYTES = 1 << 30  # of the original's logits; of more, its runs are repeated
HINT = "allow more, or quantize in smaller groups or more bits"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one set of modules costs when it is left unquantized.

    Attributes:
        modules: how many there are in the set.
        bytes: of all weights that can be quantized, in the checkpoint.
        kl, top1, perplexity: the loss on all tokens, the last one as a ratio.
    """

    modules: int
    bytes: int
    kl: float
    top1: float
    perplexity: float

    def value(self, measure: Measure) -> float:
        """Return one of the measures."""
        return {"kl": self.kl, "top1": self.top1, "perplexity": self.perplexity}[measure]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """The outcome of the search.

    Attributes:
        bound: as it was asked for.
        measure, limit: the parts of the bound.
        modules: that are left unquantized, in the order in which they were chosen; none, if the bound is met so.
        returned: modules that were chosen first, and are not needed.
        candidates: how many modules there are to choose from.
        chosen: what `modules` costs.
        plain_bytes: of all weights that can be quantized, if none of them is.
        curve: every number of modules that was tried, in the order of the search, without what was taken back.
        measured: how many sets were measured.
    """

    bound: str
    measure: Measure
    limit: float
    modules: tuple[str, ...]
    returned: tuple[str, ...]
    candidates: int
    chosen: Point
    plain_bytes: int
    curve: tuple[Point, ...]
    measured: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def find_repair(
    pair: Pair,
    candidates: Iterable[Candidate],
    bound: LossBound,
    windows: Windows,
    progress: Progress | None = None,
) -> Repair:
    """Find a smallest set of modules to leave unquantized.

    Args:
        pair: the model with either weights, both of which memory holds.
        candidates: all modules that are quantized in one of them.
        bound: of the loss.
        windows: the text.
        progress: called with (phase, done, total).

    Raises:
        ConfigError: nothing can be quantized within the bound.
    """
    original, quantized = load_both(pair)
    places = placed(candidates, original.model, quantized.model)
    alone = _alone(original, quantized, places, windows, progress)
    order = sorted(places, key=lambda each: (-_worth(each, alone[each.name]), each.name))
    remembered = Remembered(original, windows)

    def measure(left: Collection[Candidate]) -> Point:
        names = sorted({name for each in left for name in each.parameters})
        with replaced(quantized.model, original.model, names):
            tokens = run_both(remembered, quantized, windows)
        return Point(
            modules=sum(len(each.modules) for each in left),
            bytes=sum(each.plain_bytes if each in left else each.bytes for each in places),
            kl=float(tokens.kl.mean()),
            top1=float(tokens.agrees.mean()),
            perplexity=tokens.perplexity_ratio,
        )

    search = Search(order, alone, bound, measure, progress)
    found = search.run()
    for runner in (original, quantized):
        runner.forget_weights()
    return found


def _alone(
    original: HuggingFaceRunner,
    quantized: HuggingFaceRunner,
    places: Sequence[Candidate],
    windows: Windows,
    progress: Progress | None,
) -> dict[str, float]:
    """The mean KL of each with nothing else quantized; infinite, where it is no number."""
    parts = Parts(
        by="module",
        parameters={each.name: tuple(sorted(each.parameters)) for each in places},
        weights={each.name: each.weights for each in places},
    )
    batches = [ids_BL[:, :-1] for ids_BL in batches_of(spread_over(windows), windows.vocab_size)]
    shares = measure_shares(original, quantized, parts, {}, batches, progress)
    return {part.name: math.inf if math.isnan(part.kl) else part.kl for part in shares.parts}


def _worth(candidate: Candidate, kl: float) -> float:
    """What leaving it unquantized brings for each byte."""
    return math.inf if candidate.cost <= 0 else kl / candidate.cost


class Remembered:
    """A model whose logits are kept, where memory allows it.

    Args:
        model: it.
        windows: all that it is run on.
    """

    def __init__(self, model: Runs, windows: Windows) -> None:
        self._model = model
        self._fits = 4 * windows.tokens * windows.vocab_size <= REMEMBERED_BYTES
        self._logits: dict[bytes, Tensor] = {}

    def run(self, ids_BL: Tensor, /) -> Tensor:
        """Return logits [B, L, V]."""
        if not self._fits:
            return self._model.run(ids_BL)
        key = ids_BL.numpy().tobytes()
        if key not in self._logits:
            self._logits[key] = self._model.run(ids_BL)
        return self._logits[key]


class Search:
    """Looks for the set.

    Args:
        order: all modules, the best to leave first.
        alone: what each costs alone.
        bound: to be met.
        measure: gives what a set costs when it is left unquantized.
        progress: called with (phase, done, total).
    """

    def __init__(
        self,
        order: Sequence[Candidate],
        alone: dict[str, float],
        bound: LossBound,
        measure: Callable[[Collection[Candidate]], Point],
        progress: Progress | None = None,
    ) -> None:
        self._order, self._alone, self._bound = order, alone, bound
        self._measure, self._progress = measure, progress
        self._measured: dict[frozenset[Candidate], Point] = {}

    def run(self) -> Repair:
        """Search, and return the outcome.

        Raises:
            ConfigError: every module has to be left.
        """
        order, bound = self._order, self._bound
        count = self._shortest()
        curve = sorted(self._measured.values(), key=lambda point: point.modules)
        chosen = self._without_needless(order[:count])
        point = self._point(chosen)
        if len(chosen) == len(order):
            raise ConfigError(f"`{bound}` is met with no module quantized alone", hint=HINT)
        return Repair(
            bound=str(bound),
            measure=bound.measure,
            limit=bound.limit,
            modules=tuple(name for each in chosen for name in each.modules),
            returned=tuple(name for each in order[:count] if each not in chosen for name in each.modules),
            candidates=sum(len(each.modules) for each in order),
            chosen=point,
            plain_bytes=sum(each.plain_bytes for each in order),
            curve=tuple(curve),
            measured=len(self._measured),
        )

    def _shortest(self) -> int:
        """How many of the first ones meet the bound where one less does not: by bisection."""
        order = self._order
        if self._is_met(()):
            return 0
        low, high, done = 0, len(order), 0
        steps = len(order).bit_length()
        while high - low > 1:
            self._tell("repair: how many modules", done, steps)
            done += 1
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_met(order[:middle]) else (middle, high)
        self._tell("repair: how many modules", steps, steps)
        if not self._is_met(order[:high]):  # of all: the two models are one then
            raise ConfigError(f"`{self._bound}` is not met with the original weights themselves", hint=HINT)
        return high

    def _without_needless(self, chosen: Sequence[Candidate]) -> list[Candidate]:
        """Take away what the bound does not need, what costs least alone first, until nothing can be."""
        left, changed = list(chosen), True
        while changed:
            changed = False
            for done, each in enumerate(tried := sorted(left, key=lambda each: (self._alone[each.name], each.name))):
                self._tell("repair: is each module needed", done, len(tried))
                rest = [other for other in left if other != each]
                if self._is_met(rest):
                    left, changed = rest, True
            self._tell("repair: is each module needed", len(tried), len(tried))
        return left

    def _is_met(self, left: Collection[Candidate]) -> bool:
        return self._bound.is_met(self._point(left).value(self._bound.measure))

    def _point(self, left: Collection[Candidate]) -> Point:
        key = frozenset(left)
        if key not in self._measured:
            self._measured[key] = self._measure(key)
        return self._measured[key]

    def _tell(self, phase: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(phase, done, total)


def describe(repair: Repair) -> str:
    """Say it in one line."""
    point = repair.chosen
    found = f"{repair.measure} is {point.value(repair.measure):.4g}"
    if not repair.modules:
        return f"{repair.bound} is met with all {repair.candidates} modules quantized: {found}"
    return (
        f"{len(repair.modules)} of {repair.candidates} modules stay unquantized for {repair.bound}: {found}; "
        f"{point.bytes / 1e6:,.4g} MB instead of {repair.plain_bytes / 1e6:,.2f} MB unquantized, "
        f"{repair.curve[0].bytes / 1e6:,.4g} MB with none of them"
    )
