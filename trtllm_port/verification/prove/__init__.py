"""Proof that the check bites: bugs are put into a port, and each must be caught, placed and explained.

In: a port that passes. Out: `Proof`, and the page `docs/verification.md`. A newcomer adds a bug to a table `BUGS`, with
the causes that are right.
"""

from __future__ import annotations

from trtllm_port.verification.prove.harness import prove
from trtllm_port.verification.prove.outcome import Outcome, Proof

__all__ = ["Outcome", "Proof", "prove"]
