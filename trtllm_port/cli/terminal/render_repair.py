"""How `verify` shows which modules stay unquantized so that the loss keeps to a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_port.cli.terminal import console


def render_repair(repair: Mapping[str, Any]) -> None:
    """Show the modules, what each set costs that was tried, and the command that converts so.

    Args:
        repair: as in a report's JSON form.
    """
    from trtllm_port.verification.report.repair_chart import repair_rows

    modules, count = repair["modules"], repair["candidates"]
    console.line()
    if modules:
        console.line(f"repair for {repair['bound']}: {len(modules)} of {count} modules stay unquantized:")
    else:
        console.line(f"repair for {repair['bound']}: met with all {count} modules quantized")
    for name in modules:
        console.line(f"  {name}")
    if repair["returned"]:
        console.line(f"chosen first, and not needed: {', '.join(repair['returned'])}")
    rows = [
        (
            what,
            str(point["modules"]),
            f"{point['bytes'] / 1e6:,.4g}",
            _number(point["kl"], ".3g"),
            _number(point["top1"], ".2%"),
            _number(point["perplexity"], ".5g"),
        )
        for what, point in repair_rows(repair)
    ]
    plain = f"{repair['plain_bytes'] / 1e6:,.4g} MB"
    title = f"{repair['measured']} sets were measured; unquantized, these weights take {plain}:"
    columns = ("left unquantized", "modules", "MB", "mean KL", "same best token", "perplexity ratio")
    console.table(columns, rows, title=title)
    console.line(f"convert so: {repair['command']}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
