"""What Hugging Face is held to while it measures its own error."""

from __future__ import annotations

import torch

from trtllm_port.verification.sides.noise_floor import Floors
from trtllm_port.verification.sides.recording import Recording

LENGTH = 8
TAPS = {
    "mlp": torch.zeros(1, LENGTH, 4),
    "mlp.gate": torch.zeros(LENGTH, 3),
    "mlp.experts.0": torch.zeros(5, 4),
    "mlp.experts.1:input": torch.zeros(3, 4),
    "norm.table": torch.zeros(1, 4),
}


def test_an_expert_of_some_tokens_makes_its_own_error_in_hugging_face_too() -> None:
    """A port has no module for it: were it held fast, its rounding would be the port's alone."""
    floors = Floors(Recording(taps=TAPS, length=LENGTH, rows=()), inject=True)
    held = {tap for tap, reference in TAPS.items() if floors._compare(tap, reference + 1.0) is not None}
    assert held == {"mlp", "mlp.gate", "norm.table"}
    assert floors.errors.keys() == TAPS.keys()
