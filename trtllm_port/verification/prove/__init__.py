"""Proof that the check bites: bugs are put into a port, and each must be caught, placed and explained.

In: a model directory and a sound port. Out: `Proof`. A newcomer adds a `Bug` to one of the tables.
"""

from __future__ import annotations

from trtllm_port.verification.prove.harness import prove
from trtllm_port.verification.prove.outcome import Outcome, Proof

__all__ = ["Outcome", "Proof", "prove"]
