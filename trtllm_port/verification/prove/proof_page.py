"""`docs/verification.md` and its page on quantized weights: what several proofs found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from trtllm_port.verification.prove.bugs import Bug
from trtllm_port.verification.prove.outcome import Outcome, Proof, count

PLAIN_HEAD = """\
# Does the verification bite?

`make prove` writes this page. It generates ports of {architectures} architectures from tiny configs with random
weights, puts one bug at a time into the port's source or its converted weights (never into the checker), and runs the
comparison that `diff-layers` makes, decode steps and batches included. `trtllm-port verify MODEL --prove` does the same
to a port of yours. What it finds in ports with quantized weights is on [a page of its own](verification-quantized.md).
"""
QUANTIZED_HEAD = """\
# Does the verification bite where weights are quantized?

`make prove-quantized` writes this page. It generates ports of {architectures} architectures from tiny configs,
quantizes random weights as published models are stored, or by rounding (`--quant-algo`), converts them with their codes
and scales, and puts one bug at a time into the port's source, its plain weights, or its codes and scales. Bugs that
change a plain weight have no place in a quantized one. All else is as on [the page of plain ports](verification.md).
"""
TERMS = """\

A bug is **caught** if the verdict is fail, **placed** if the module named first is the one that was edited, and
**explained** if the cause named first is the true one. A bug is *not exercised* if nothing was found and it changes
none of the port's logits by more than three times Hugging Face's own error in that precision: such bugs are listed and
not counted.

"""


def document(proofs: Sequence[Proof], catalogue: Sequence[Bug], head: str = PLAIN_HEAD) -> str:
    """Return the page.

    Args:
        proofs: of all ports.
        catalogue: the bugs that are listed.
        head: how the page begins.
    """
    outcomes = [outcome for proof in proofs for outcome in proof.exercised]
    lines = [
        head.format(architectures=len({proof.architecture for proof in proofs})) + TERMS,
        f"**{len(outcomes)} exercised bugs: {_shares(outcomes)}.**\n",
        *_of_codes(outcomes),
        "| architecture | dtype | exercised | caught | right module | right cause first | not exercised |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(_row(proof) for proof in proofs),
        "\n## By bug\n",
        "Ports that the bug was exercised in; of these caught, placed, explained.\n",
        "| bug | in | what | exercised | caught | placed | explained |",
        "|---|---|---|---:|---:|---:|---:|",
        *(_bug(bug, proofs) for bug in catalogue),
        *_wrong(proofs),
        *_quiet(proofs),
    ]
    return "\n".join(lines) + "\n"


def _of_codes(outcomes: Sequence[Outcome]) -> list[str]:
    """What the sum above would hide: how those fare that are about quantized weights."""
    found = [outcome for outcome in outcomes if outcome.kind == "quantized"]
    return [f"{len(found)} of them are in codes and scales: {_shares(found)}.\n"] if found else []


def _shares(outcomes: Sequence[Outcome]) -> str:
    return (
        f"{_share(outcomes, 'caught')} caught, {_share(outcomes, 'placed')} at the right module, "
        f"{_share(outcomes, 'explained')} with the true cause first"
    )


def _share(outcomes: Sequence[Outcome], name: str) -> str:
    return f"{count(outcomes, name)} ({count(outcomes, name) / max(1, len(outcomes)):.1%})"


def _row(proof: Proof) -> str:
    counted = proof.exercised
    numbers = " | ".join(str(count(counted, name)) for name in ("caught", "placed", "explained"))
    quiet = sum(outcome.status == "not exercised" for outcome in proof.outcomes)
    return f"| {proof.name} | {proof.dtype} | {len(counted)} | {numbers} | {quiet} |"


def _bug(bug: Bug, proofs: Sequence[Proof]) -> str:
    found = [outcome for proof in proofs for outcome in proof.exercised if outcome.bug == bug.id]
    numbers = " | ".join(str(count(found, name)) for name in ("caught", "placed", "explained"))
    return f"| `{bug.id}` | {bug.kind} | {bug.description} | {len(found)} | {numbers} |"


def _wrong(proofs: Sequence[Proof]) -> list[str]:
    rows = [
        f"| {proof.name} {proof.dtype} | `{o.bug}` | {o.status} | `{o.module or 'the model'}` | {_cause(o)} |"
        for proof in proofs
        for o in proof.exercised
        if not (o.caught and o.placed and o.explained)
    ]
    if not rows:
        return []
    head = [
        "\n## Not as they should be\n",
        "| port | bug | status | module named | cause named |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows]


def _cause(outcome: Outcome) -> str:
    named = f"{outcome.cause or 'none of the known'} ({outcome.cause_status})" if outcome.caught else outcome.reason
    return named if outcome.explained else f"{named}; true is {' or '.join(outcome.causes)}"


def _quiet(proofs: Sequence[Proof]) -> list[str]:
    rows = [
        f"| {proof.name} {proof.dtype} | `{o.bug}` | {o.reason} |"
        for proof in proofs
        for o in proof.outcomes
        if o.status == "not exercised"
    ]
    return ["\n## Not exercised\n", "| port | bug | why |", "|---|---|---|", *rows] if rows else []
