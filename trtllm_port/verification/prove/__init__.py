"""Proof that the check bites: bugs are put into a port, and each must be caught, placed and explained."""

from __future__ import annotations

from trtllm_port.verification.prove.harness import prove
from trtllm_port.verification.prove.outcome import Outcome, Proof

__all__ = ["Outcome", "Proof", "prove"]
