"""Geometry of the report's pictures: scales, curves and heat maps as plain numbers. No markup."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtllm_port.verification.taps.names import is_input

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
LAYER = re.compile(r"(?P<stack>.*?\.\d+)(?:\.(?P<part>.*))?\Z", re.DOTALL)
HEAT_METRICS = ("ratio", "token_ratio", "linf_ratio", "rel_l2", "cosine_distance")
# Upper bounds of the colours 0 to 5; a ratio passes in the first two, warns in the third, fails beyond.
RATIO_STEPS = (1.0, 1.5, 3.0, 10.0, 100.0)
ERROR_STEPS = (1e-7, 1e-5, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    label: str
    kind: str
    path: str
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with a logarithmic vertical axis.

    Attributes:
        title: what is drawn.
        curves: the lines.
        y_ticks, x_ticks: (position, label).
        x_label: of the horizontal axis.
        legend: (kind, what its colour means).
    """

    title: str
    curves: tuple[Curve, ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    x_label: str
    legend: tuple[tuple[str, str], ...] = (("port", "port"), ("floor", "Hugging Face’s own error"))


def log_chart(title: str, x_label: str, series: Mapping[str, Sequence[float | None]], last: int) -> Chart | None:
    """Draw error curves over an index, on a logarithmic axis.

    Args:
        title: what is drawn.
        x_label: of the index.
        series: label → values; None and 0 are gaps. Labels "port" and "floor" select the style.
        last: the index that the last value stands for.
    """
    values = [value for line in series.values() for value in line if value]
    count = max((len(line) for line in series.values()), default=0)
    if not values or count < 2:
        return None
    y_of, y_ticks = _log_axis(values)

    def x_of(index: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * index / (count - 1), 1)

    return Chart(
        title=title,
        curves=tuple(_curve(label, line, x_of, y_of) for label, line in series.items()),
        y_ticks=y_ticks,
        x_ticks=tuple((x_of(i), str(round(last * i / (count - 1)))) for i in _spread(count)),
        x_label=x_label,
    )


def size_chart(title: str, x_label: str, points: Mapping[str, Sequence[tuple[float, float]]]) -> Chart | None:
    """Draw losses over sizes, on a logarithmic vertical axis.

    Args:
        title: what is drawn.
        x_label: of the sizes.
        points: label → (size, loss); losses of 0 and below are gaps. "port", "floor" and "chosen" select the style.
    """
    shown = {label: [(x, y) for x, y in line if y > 0 and math.isfinite(y)] for label, line in points.items()}
    sizes = [x for line in points.values() for x, _ in line]
    losses = [y for line in shown.values() for _, y in line]
    if not losses or min(sizes) == max(sizes):
        return None
    y_of, y_ticks = _log_axis(losses)
    low, high = min(sizes), max(sizes)

    def x_of(size: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (size - low) / (high - low), 1)

    curves = []
    for label, line in shown.items():
        placed = tuple((x_of(x), y_of(math.log10(y)), f"{x:,.4g}: {y:.3g}") for x, y in line)
        path = "M" + " L".join(f"{x} {y}" for x, y, _ in placed) if len(placed) > 1 else ""
        curves.append(Curve(label=label, kind=label, path=path, points=() if label == "floor" else placed))
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    return Chart(
        title=title,
        curves=tuple(curves),
        y_ticks=y_ticks,
        x_ticks=tuple((x_of(tick), f"{tick:,.3g}") for tick in ticks),
        x_label=x_label,
        legend=(),
    )


def _log_axis(values: Sequence[float]) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """The place of each exponent on a vertical axis, and its ticks."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def y_of(exponent: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - exponent) / (high - low), 1)

    step = -(-(high - low) // 5)
    return y_of, tuple((y_of(tick), f"1e{tick}") for tick in range(low, high + 1, step))


def _curve(label: str, line: Sequence[float | None], x_of: Any, y_of: Any) -> Curve:
    points = tuple((x_of(i), y_of(math.log10(value)), f"{value:.2e}") for i, value in enumerate(line) if value)
    path = "M" + " L".join(f"{x} {y}" for x, y, _ in points) if points else ""
    return Curve(label=label, kind="floor" if label.startswith("floor") else "port", path=path, points=points)


def _spread(count: int, ticks: int = 6) -> list[int]:
    ticks = min(ticks, count)
    return sorted({round(i * (count - 1) / (ticks - 1)) for i in range(ticks)})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A tap in a heat map: its colour by each metric (0 to 5, -1 for none), one string per phase, and its texts."""

    tap: str
    verdict: str
    shades: str
    logic_shades: str
    text: str
    short: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Layers × parts of a layer."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    others: tuple[Cell, ...]


def heat_map(taps: Sequence[Mapping[str, Any]]) -> HeatMap:
    """Arrange the output taps: one row per layer, one column per part; what is in no layer stands apart."""
    grid: dict[str, dict[str, Cell]] = {}
    columns: dict[str, None] = {}
    others: list[Cell] = []
    for tap in taps:
        if is_input(tap["name"]):
            continue
        match = LAYER.match(tap["name"])
        if match is None:
            others.append(_cell(tap))
            continue
        part = match["part"] or "output"
        columns.setdefault(part)
        grid.setdefault(match["stack"], {})[part] = _cell(tap)
    ordered = [name for name in columns if name != "output"] + (["output"] if "output" in columns else [])
    rows = tuple((stack, tuple(parts.get(name) for name in ordered)) for stack, parts in sorted_layers(grid))
    return HeatMap(columns=tuple(ordered), rows=rows, others=tuple(others))


def sorted_layers(grid: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Sort paths by prefix and number."""
    return sorted(grid.items(), key=lambda item: (item[0].rpartition(".")[0], int(item[0].rpartition(".")[2])))


def _cell(tap: Mapping[str, Any]) -> Cell:
    return Cell(
        tap=tap["name"],
        verdict=tap["verdict"],
        shades=_shades(tap["metrics"], tap["verdict"]),
        logic_shades=_shades(tap["logic"], tap["verdict"]),
        text=_text(tap),
        short=_short(tap["metrics"]["ratio"]) if tap["metrics"] else tap["verdict"],
    )


def _shades(metrics: Mapping[str, float | None] | None, verdict: str) -> str:
    if metrics is None:
        return ("5" if verdict == "fail" else "-") * len(HEAT_METRICS)
    cosine = metrics.get("cosine")
    values = {**metrics, "cosine_distance": None if cosine is None else max(0.0, 1 - cosine)}
    return "".join(
        _shade(values[name], RATIO_STEPS if name.endswith("ratio") else ERROR_STEPS) for name in HEAT_METRICS
    )


def _shade(value: float | None, steps: Sequence[float]) -> str:
    if value is None:
        return "5"  # infinite
    return str(sum(value > step for step in steps))


def _text(tap: Mapping[str, Any]) -> str:
    metrics = tap["metrics"]
    if metrics is None:
        return f"{tap['name']}: {tap['note']}"
    said = f"{tap['name']}: r {_short(metrics['ratio'])}, rel L2 {_short(metrics['rel_l2'])}"
    return said + (f", float32 r {_short(tap['logic']['ratio'])}" if tap["logic"] else "")


def _short(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3g}"


def position_rows(taps: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return, per layer output, the colour and the text of its noise ratio at each group of positions."""
    rows = {}
    for tap in taps:
        match = LAYER.match(tap["name"])
        if match is not None and match["part"] is None and tap["positions"]:
            rows[tap["name"]] = [(_shade(value, RATIO_STEPS), _short(value)) for value in tap["positions"]]
    return sorted_layers(rows)


def depth_series(taps: Sequence[Mapping[str, Any]], phase: str) -> dict[str, list[float | None]]:
    """Return the error of every layer's output, port and floor; `phase` is "metrics" or "logic"."""
    found = {}
    for tap in taps:
        match = LAYER.match(tap["name"])
        if match is not None and match["part"] is None and tap[phase] is not None:
            found[tap["name"]] = tap[phase]
    layers = [metrics for _, metrics in sorted_layers(found)]
    return {"port": [m["rel_l2"] for m in layers], "floor": [m["floor"] for m in layers]}
