from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.verification.places import place_of

SOURCE = """\
class Attention(Module):
    def __init__(self):
        self.q_proj = Linear(8, 8)

class Layer(Module):
    def __init__(self):
        self.attn = Attention()
        self.norm = RmsNorm(8, 1e-5)

class Net(Module):
    def __init__(self):
        self.layers = DecoderLayerList(Layer, 2)
"""
CLASSES = {
    "": "Net",
    "layers.1": "Layer",
    "layers.1.attn": "Attention",
    "layers.1.attn.q_proj": "Linear",
    "layers.1.norm": "LlamaRMSNorm",
    "layers.1.other": "Other",
}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("", "line 10: `class Net`"),
        ("layers.1", "line 5: `class Layer`"),
        ("layers.1.attn", "line 1: `class Attention`"),
        ("layers.1.attn.q_proj", "line 3: `self.q_proj = Linear(8, 8)`"),
        ("layers.1.norm", "line 8: `self.norm = RmsNorm(8, 1e-5)`"),
    ],
)
def test_the_line_of_a_module(tmp_path: Path, module: str, line: str) -> None:
    package = tmp_path / "models" / "net"
    package.mkdir(parents=True)
    (package / "model.py").write_text(SOURCE)
    assert place_of(package, module, CLASSES) == f"`models/net/model.py` {line}"


def test_what_is_not_there_has_no_place(tmp_path: Path) -> None:
    assert place_of(tmp_path, "layers.1", CLASSES) is None
    (tmp_path / "model.py").write_text(SOURCE)
    assert place_of(tmp_path, "layers.1.other", CLASSES) is None
    (tmp_path / "model.py").write_text("class Layer(:\n")
    assert place_of(tmp_path, "layers.1", CLASSES) is None
