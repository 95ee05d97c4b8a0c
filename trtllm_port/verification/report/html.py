"""Renders a report's JSON form as one self-contained page: no script from elsewhere, no font, no request."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from trtllm_port.foundation.quoting import visible
from trtllm_port.verification.judge.verdict import counted, in_words
from trtllm_port.verification.report.charts import (
    HEAT_METRICS,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Chart,
    depth_series,
    heat_map,
    log_chart,
    position_rows,
)
from trtllm_port.verification.report.repair_chart import repair_chart, repair_rows
from trtllm_port.verification.taps.layer_groups import group_across_layers, name_a_few

TABLE_ROWS = 400  # taps in the table: all that do not pass, then the largest ratios
LOSS_ROWS = 10  # parts of the model that quantization costs most in
PROBLEMS = 6  # gates on the first screen where no module is to blame
HEADLINES = {"pass": "Pass", "fail": "Fail", "cannot_tell": "Cannot tell"}
METRIC_LABELS = {
    "ratio": "noise ratio r",
    "token_ratio": "r, 95th percentile of tokens",
    "linf_ratio": "r of the largest error",
    "rel_l2": "relative L2 error",
    "cosine_distance": "1 − cosine",
}


def html_page(report: dict[str, Any]) -> str:
    """Render the page.

    Args:
        report: `Report.to_dict()`.
    """
    environment = Environment(
        loader=PackageLoader("trtllm_port.verification.report"),
        autoescape=select_autoescape(default_for_string=True, default=True),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "ticks": ticks,
        "words": lambda text: text.replace("_", " "),
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        headline=HEADLINES[report["verdict"]],
        heat=heat_map(report["taps"]),
        heat_metrics=[(name, METRIC_LABELS[name]) for name in HEAT_METRICS],
        two_phases=any(tap["logic"] for tap in report["taps"]),
        positions=position_rows(report["taps"]),
        alike=alike(report["divergences"]),
        others=others(report["divergences"]),
        problems=[gate for gate in report["gates"] if gate["verdict"] == report["verdict"]][:PROBLEMS],
        charts=charts(report),
        repair_chart=None if report["repair"] is None else repair_chart(report["repair"]),
        repair_rows=None if report["repair"] is None else repair_rows(report["repair"]),
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        table=table_rows(report["taps"]),
        table_rows=TABLE_ROWS,
        loss_rows=LOSS_ROWS,
        counts={part: in_words(counted(each["verdict"] for each in report[part])) for part in ("gates", "taps")},
    )


def alike(divergences: list[dict[str, Any]]) -> str:
    """Name the modules of other layers that are wrong like the first one."""
    groups = group_across_layers([found["module"] for found in divergences])
    return name_a_few([divergences[i]["module"] for i in groups[0][1:]]) if groups else ""


def others(divergences: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the further modules that are wrong by themselves, those of several layers together."""
    groups = group_across_layers([found["module"] for found in divergences])[1:]
    return [(name_a_few([divergences[i]["module"] for i in group]), divergences[group[0]]) for group in groups]


def charts(report: dict[str, Any]) -> list[Chart]:
    """Return the curves of error by depth and by position, for every phase that there is."""
    dtype = report["subject"]["dtype"]
    drawn = []
    for phase, key, precision in (("precision", "metrics", dtype), ("logic", "logic", "float32")):
        series = depth_series(report["taps"], key)
        drawn.append(log_chart(f"Error by depth, {precision}", "layer", series, len(series["port"]) - 1))
        profile = report["position_profile"].get(phase if dtype != "float32" or key == "logic" else "logic")
        if profile is not None and (dtype != "float32" or key == "metrics"):
            title = f"Error of the logits by position, {precision}"
            drawn.append(log_chart(title, "position", profile, report["stimulus"]["tokens"] - 1))
    return [chart for chart in drawn if chart is not None]


def table_rows(taps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the taps of the table in execution order: what does not pass, filled up with the largest ratios."""
    order = {"fail": 0, "cannot_tell": 1, "warn": 2, "pass": 3, "skipped": 4}
    ranked = sorted(range(len(taps)), key=lambda i: (order[taps[i]["verdict"]], -_ratio(taps[i])))
    return [taps[i] for i in sorted(ranked[:TABLE_ROWS])]


def number(value: float | int | None, digits: int = 3) -> str:
    """Write a number shortly; infinity and what is not there alike become a dash."""
    return "–" if value is None else f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as percent; infinity and what is not there alike become a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _visible(value: object) -> object:
    """What a template prints, with characters that act or do not show as escapes."""
    if isinstance(value, Markup):
        return Markup(visible(value))
    return visible(value) if isinstance(value, str) else value


def ticks(text: str) -> Markup:
    """Escape a text and turn its backticks into code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _ratio(tap: dict[str, Any]) -> float:
    metrics = tap["metrics"] or tap["logic"]
    return (metrics["ratio"] or 0.0) if metrics else 0.0
