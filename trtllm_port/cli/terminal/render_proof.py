"""How `verify --prove` shows what became of every bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtllm_port.cli.terminal import console

if TYPE_CHECKING:
    from trtllm_port.verification.prove import Outcome, Proof


def render_proof(proof: Proof) -> None:
    """The sentence that counts, then every bug that was exercised, then those that were not."""
    console.line(proof.summary)
    console.line(f"{proof.name}, port `{proof.port}` in {proof.dtype}, {proof.tokens} tokens; {proof.executor}")
    rows = [
        [
            outcome.bug,
            outcome.status,
            outcome.gate or "-",
            _marked(_module(outcome), good=outcome.placed),
            _marked(f"{outcome.cause or 'unknown'} ({outcome.cause_status})", good=outcome.explained),
        ]
        for outcome in proof.exercised
    ]
    console.line()
    console.table(["bug", "status", "gate", "module named", "cause named"], rows)
    for outcome in proof.outcomes:
        if outcome.status == "not exercised":
            console.line(f"not exercised: {outcome.bug}: {outcome.reason}")
    nowhere = sum(outcome.status == "no place" for outcome in proof.outcomes)
    console.line(f"{nowhere} bugs of the catalogue fit nothing in this port; {proof.seconds:.1f} s")
    for outcome in proof.exercised:
        if not outcome.caught:
            console.line(f"missed: {outcome.bug}: {outcome.change}: {outcome.reason}")


def _module(outcome: Outcome) -> str:
    if outcome.module is None:
        return "none"
    return outcome.module or "the model"


def _marked(text: str, *, good: bool) -> str:
    return text if good else f"{text}, wrong"
