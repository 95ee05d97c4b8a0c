"""How `verify` shows what quantization cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_port.cli.terminal import console

SHOWN = 10


def render_loss(loss: Mapping[str, Any]) -> None:
    """Show the costliest parts and what else a reader must know; `loss` as in a report's JSON form."""
    kl = loss["kl"]
    console.line()
    console.line(
        f"quantization cost, on {loss['windows']} windows of {loss['window']} tokens ({loss['text']}): {loss['word']}"
    )
    console.line(
        f"  KL of a token: mean {_number(kl['mean'])}, median {_number(kl['median'])}, 99th percentile "
        f"{_number(kl['p99'])}, maximum {_number(kl['max'])}"
    )
    shares = loss["shares"]
    if shares is not None:
        rows = [
            (part["name"] or "the model", _percent(part["share"]), _number(part["kl"]), _percent(part["error"], 2))
            for part in shares["parts"][:SHOWN]
        ]
        title = (
            f"each {shares['by']} quantized alone, on {shares['tokens']} tokens; together they cost "
            f"{_number(shares['together'])}, the parts add up to {_number(shares['sum'])}:"
        )
        console.table((shares["by"], "share", "mean KL", "error of its weights"), rows, title=title)
        if len(shares["parts"]) > SHOWN:
            console.line(f"… and {len(shares['parts']) - SHOWN} more")
    for note in loss["notes"]:
        console.line(f"note: {note}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}%}"
