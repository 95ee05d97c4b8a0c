from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.verification.places import LONGEST, excerpt_of, place_of

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


def written(directory: Path, source: str = SOURCE) -> Path:
    path = directory / "models" / "net" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return path


def test_an_excerpt_is_the_class_with_the_uses_marked(tmp_path: Path) -> None:
    path = written(
        tmp_path, SOURCE.replace("RmsNorm(8, 1e-5)\n", "RmsNorm(8, 1e-5)\n    def go(self):\n        self.attn()\n")
    )
    found = excerpt_of("port", path, "layers.1", CLASSES, "attn.q_proj")
    assert found is not None
    assert (found.path, found.first_line, found.marked) == ("models/net/model.py", 5, (10,))
    assert (found.lines[0], len(found.lines)) == ("class Layer(Module):", 6)
    assert "attn.q_proj" in found.note


def test_an_excerpt_of_a_layer_of_the_library_is_its_assignment(tmp_path: Path) -> None:
    found = excerpt_of("port", written(tmp_path), "layers.1.norm", CLASSES)
    assert found is not None
    assert found.lines[found.marked[0] - found.first_line].strip() == "self.norm = RmsNorm(8, 1e-5)"
    assert excerpt_of("port", tmp_path / "absent.py", "layers.1", CLASSES) is None


@pytest.mark.parametrize("call", [3, 70])
def test_of_a_long_class_the_method_around_the_mark_is_shown(tmp_path: Path, call: int) -> None:
    body = "".join("        self.attn()\n" if i == call else "        pass\n" for i in range(80))
    source = "class Layer(Module):\n    def __init__(self):\n        self.attn = 1\n\n    def forward(self):\n" + body
    found = excerpt_of("port", written(tmp_path, source), "layers.1", CLASSES, "attn")
    assert found is not None
    assert len(found.lines) <= LONGEST
    assert found.lines[found.marked[0] - found.first_line].strip() == "self.attn()"
