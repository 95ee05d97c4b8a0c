"""How the report shows a repair: every set that was tried on the way, by its size and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trtllm_port.verification.report.charts import Chart, size_chart
from trtllm_port.verification.stimulus.loss_bound import LossBound

AXES = {"kl": "mean KL", "top1": "share of other best tokens", "perplexity": "perplexity ratio − 1"}


def repair_rows(repair: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what was measured as (what it is, point), the smallest checkpoint first, the chosen set among them.

    Args:
        repair: the JSON form of `Repair`.
    """
    chosen = repair["chosen"]
    others = [point for point in repair["curve"] if point != chosen]
    rows = [(f"the first {point['modules']}" if point["modules"] else "none", point) for point in others]
    return sorted([*rows, ("chosen", chosen)], key=lambda row: (row[1]["bytes"], row[1]["modules"]))


def repair_chart(repair: Mapping[str, Any]) -> Chart | None:
    """Draw the size of the checkpoint's weights against the loss that is bounded.

    Args:
        repair: the JSON form of `Repair`.
    """
    measure = repair["measure"]
    bound = LossBound(measure, repair["limit"])

    def place(point: Mapping[str, Any]) -> tuple[float, float]:
        value = point[measure]
        return point["bytes"] / 1e6, float("inf") if value is None else bound.distance(value)

    measured = [place(point) for point in repair["curve"]]
    sizes = [measured[0][0], repair["plain_bytes"] / 1e6]
    chart = size_chart(
        f"Size against loss: {AXES[measure]}",
        "MB of the weights that can be quantized",
        {
            "port": measured,
            "floor": [(size, bound.distance(bound.limit)) for size in sizes],
            "chosen": [place(repair["chosen"])],
        },
    )
    legend = (
        ("port", "the first modules by their order"),
        ("floor", f"{bound}"),
        ("chosen", "the set that was chosen"),
    )
    return None if chart is None else replace(chart, legend=legend)
