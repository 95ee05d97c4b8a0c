"""Causes by replay: a known bug, given to Hugging Face's own module, must give the port's own error.

In: a module's recorded call, and what the port computed. Out: `Trial`s. A newcomer adds a `Hypothesis` to one of the
tables.
"""

from __future__ import annotations

from trtllm_port.verification.experiments.catalogue import HYPOTHESES
from trtllm_port.verification.experiments.judge import Trial, replay
from trtllm_port.verification.experiments.weights import own_weights, shared

__all__ = ["HYPOTHESES", "Trial", "own_weights", "replay", "shared"]
