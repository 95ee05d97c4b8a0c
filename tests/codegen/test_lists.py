"""Modules that have numbers for names: lists in the port, with places for those that compute nothing."""

from __future__ import annotations

import pytest

from trtllm_port.codegen.ir.formatting import reference
from trtllm_port.codegen.write.constructors import assigned


@pytest.mark.parametrize(
    ("path", "called", "made"),
    [
        ("q_proj", "self.q_proj", "self.q_proj = Module()"),
        ("mlp.up", "self.mlp.up", "self.mlp.up = Module()"),
        ("rotary_embs.0", "self.rotary_embs[0]", "self.rotary_embs.append(Module())"),
        ("experts.1.up", "self.experts[1].up", "self.experts[1].up = Module()"),
        ("2", "self[2]", "self.append(Module())"),
    ],
)
def test_modules_with_numbers_are_in_lists(path: str, called: str, made: str) -> None:
    assert reference(path) == called
    assert assigned(path, "Module()") == made
