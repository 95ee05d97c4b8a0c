from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtllm_port.verification.causes.locations import LONGEST, Excerpt, WhereToLook, excerpt_of, place_of, window
from trtllm_port.verification.causes.source_tree import Sources

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


def sources(path: Path, class_names: dict[str, str] | None = None) -> Sources:
    return Sources((path,), "Net", CLASSES if class_names is None else class_names)


def excerpt(path: Path, module: str, child: str | None = None) -> Excerpt | None:
    place = place_of(sources(path), module, WhereToLook(child=child))
    return None if place is None else excerpt_of("port", place)


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
    assert str(place_of(sources(package / "model.py"), module)) == f"`models/net/model.py` {line}"
    without_names = sources(package / "model.py", {})  # of a port whose classes have names of their own
    assert str(place_of(without_names, module)) == f"`models/net/model.py` {line}"


def test_what_is_not_there_is_looked_for_in_what_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    assert place_of(sources(path), "layers.1") is None
    path.write_text(SOURCE)
    assert str(place_of(sources(path), "layers.1.other")).endswith("line 5: `class Layer`")
    assert str(place_of(sources(path), "layers.1.attn.kernel.bias")).endswith("line 1: `class Attention`")
    path.write_text("class Layer(:\n")
    assert place_of(sources(path), "layers.1") is None
    path.write_bytes(b"\xff\x00")
    assert place_of(sources(path), "layers.1") is None


def written(directory: Path, source: str = SOURCE) -> Path:
    path = directory / "models" / "net" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return path


def test_an_excerpt_is_the_class_with_the_uses_marked(tmp_path: Path) -> None:
    path = written(
        tmp_path, SOURCE.replace("RmsNorm(8, 1e-5)\n", "RmsNorm(8, 1e-5)\n    def go(self):\n        self.attn()\n")
    )
    found = excerpt(path, "layers.1", "attn.q_proj")
    assert found is not None
    assert (found.path, found.first_line, found.marked) == ("models/net/model.py", 5, (10,))
    assert (found.lines[0], len(found.lines)) == ("class Layer(Module):", 6)
    assert "attn.q_proj" in found.note


def test_an_excerpt_of_a_layer_of_the_library_is_its_assignment(tmp_path: Path) -> None:
    found = excerpt(written(tmp_path), "layers.1.norm")
    assert found is not None
    assert found.lines[found.marked[0] - found.first_line].strip() == "self.norm = RmsNorm(8, 1e-5)"
    assert excerpt(tmp_path / "absent.py", "layers.1") is None


@pytest.mark.parametrize("call", [3, 70])
def test_of_a_long_class_the_method_around_the_mark_is_shown(tmp_path: Path, call: int) -> None:
    body = "".join("        self.attn()\n" if i == call else "        pass\n" for i in range(80))
    source = "class Layer(Module):\n    def __init__(self):\n        self.attn = 1\n\n    def forward(self):\n" + body
    found = excerpt(written(tmp_path, source), "layers.1", "attn")
    assert found is not None
    assert len(found.lines) <= LONGEST
    assert found.lines[found.marked[0] - found.first_line].strip() == "self.attn()"


@given(
    first=st.integers(1, 50),
    count=st.integers(1, 200),
    marks=st.lists(st.integers(-60, 300), max_size=8),
    longest=st.integers(1, 60),
)
def test_what_is_shown_has_the_marks(first: int, count: int, marks: list[int], longest: int) -> None:
    lines = range(first, first + count)
    shown, marked = window(lines, marks, longest)
    inside = sorted(mark for mark in marks if mark in lines)
    assert 1 <= len(shown) <= longest
    assert shown.start in lines
    assert shown.stop - 1 in lines
    assert len(shown) == longest or shown == lines or inside
    assert all(mark in shown for mark in marked)
    assert marked == tuple(inside[: len(marked)])  # the first of them, and no other
    if inside:
        assert inside[0] in marked
        assert all(mark - inside[0] >= longest for mark in inside[len(marked) :])


@pytest.mark.parametrize("length", [1, 40, 43, 44, 45, 46, 90, 300])
@pytest.mark.parametrize("uses", [(), (0,), (-1,), (0, -1), (0, 1, 2), (30,)])
def test_an_excerpt_marks_the_right_lines_of_a_class_of_any_length(
    tmp_path: Path, length: int, uses: tuple[int, ...]
) -> None:
    body = ["        pass\n"] * length
    for use in uses:
        body[min(use, length - 1)] = "        self.attn()\n"
    head = "class Layer(Module):\n    def __init__(self):\n        self.attn = 1\n\n    def forward(self):\n"
    for child in ("attn", None, "absent"):
        found = excerpt(written(tmp_path / f"{child}", head + "".join(body)), "layers.1", child)
        assert found is not None
        texts = [found.lines[line - found.first_line] for line in found.marked]
        assert found.first_line <= found.marked[0] <= found.marked[-1] < found.first_line + len(found.lines)
        assert len(found.lines) <= LONGEST
        if uses and child == "attn":
            assert {text.strip() for text in texts} == {"self.attn()"}
        else:
            assert [text.strip() for text in texts] in (["class Layer(Module):"], ["def forward(self):"])


HAND_WRITTEN = """\
class Base(Module):
    def __init__(self):
        self.norm = RmsNorm(8)


class Block(Base):
    def __init__(self, layer):
        self.ffn = Dense() if layer else Sparse()
        self.mixer: Module = Mixer()
        self.heads = ModuleList([Head() for _ in range(2)])

    def forward(self, x):
        return x + self.ffn(self.norm(x))


class Net(Module):
    def __init__(self):
        self.blocks = DecoderLayerList(Block, 2)
"""


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("blocks.0", "model.py` line 6: `class Block`"),
        ("blocks.0.norm", "model.py` line 3: `self.norm = RmsNorm(8)`"),
        ("blocks.0.mixer", "parts.py` line 1: `class Mixer`"),
        ("blocks.0.ffn", "model.py` line 8: `self.ffn = Dense() if layer else Sparse()`"),
        ("blocks.0.ffn.up", "model.py` line 8: `self.ffn = Dense() if layer else Sparse()`"),
        ("blocks.1.heads.1", "parts.py` line 5: `class Head`"),
        ("blocks.1.heads", "model.py` line 10: `self.heads = ModuleList([Head() for _ in range(2)])`"),
        ("", "model.py` line 16: `class Net`"),
    ],
)
def test_a_port_by_hand_has_classes_and_files_of_its_own(tmp_path: Path, module: str, line: str) -> None:
    (tmp_path / "model.py").write_text(HAND_WRITTEN)
    names = ("Mixer", "Head", "Dense", "Sparse")
    (tmp_path / "parts.py").write_text("\n\n\n".join(f"class {name}(Module):\n    pass" for name in names))
    found = place_of(Sources((tmp_path / "model.py", tmp_path / "parts.py"), "Net", {}), module)
    assert str(found).endswith(line)


def test_the_statement_that_fits_is_one_that_computes(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(
        "class Net(Module):\n    def __init__(self, n):\n        self.n = n + 1\n\n    def forward(self, x, y):\n"
        "        residual = x\n        x = residual + y\n        return residual + x\n"
    )
    look = WhereToLook(patterns=(r"residual.*\+", r"\+"))
    assert str(place_of(sources(path), "", look)).endswith("line 7: `x = residual + y`")
    assert str(place_of(sources(path), "", WhereToLook(patterns=look.patterns, number=1))).endswith(
        "`return residual + x`"
    )
    assert str(place_of(sources(path), "", WhereToLook(patterns=("self, x",)))).endswith("line 1: `class Net`")


BASE = """\
class BaseAttention(Module):
    def __init__(self, config):
        super().__init__()
        self.scale = 8**-0.5
        self.q_proj = Linear(8, 8)

    def forward(self, x):
        return self.scores(self.q_proj(x) * self.scale)

    def scores(self, x):
        return softmax(x)
"""
HEIR = """\
from ..base.model import BaseAttention

class Attention(BaseAttention):
    def __init__(self, config):
        super().__init__(config)
        self.scale = 16**-0.5

    def scores(self, x):
        return sigmoid(x)

class Net(Module):
    def __init__(self, config):
        self.attn = Attention(config)
"""


@pytest.mark.parametrize(
    ("module", "look", "line"),
    [
        ("attn", WhereToLook(), "net/model.py` line 3: `class Attention`"),
        ("attn", WhereToLook(patterns=(r"scale",)), "base/model.py` line 8: `return self.scores(self.q_proj(x)"),
        ("attn", WhereToLook(patterns=(r"\*\*-0\.5",)), "net/model.py` line 6: `self.scale = 16**-0.5`"),
        ("attn", WhereToLook(patterns=(r"softmax", r"sigmoid")), "net/model.py` line 9: `return sigmoid(x)`"),
        ("attn", WhereToLook(child="q_proj"), "base/model.py` line 8: `return self.scores("),
        ("attn.q_proj", WhereToLook(), "base/model.py` line 5: `self.q_proj = Linear(8, 8)`"),
    ],
)
def test_a_class_that_inherits_has_the_lines_of_its_base(
    tmp_path: Path, module: str, look: WhereToLook, line: str
) -> None:
    """What both compute comes first, then what either sets; overridden methods of the base do not count."""
    paths = []
    for name, text in (("net", HEIR), ("base", BASE)):
        paths.append(tmp_path / "models" / name / "model.py")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text(text)
    place = place_of(Sources(paths, "Net", {"": "Net", "attn": "Attention"}), module, look)
    assert str(place).startswith(f"`models/{line}")


def test_a_class_may_have_the_name_of_what_its_base_inherits_from(tmp_path: Path) -> None:
    """Of another file: following names alone would go round for ever."""
    paths = [tmp_path / name / "model.py" for name in ("net", "base")]
    for path, bases in zip(paths, (("Block", "Part"), ("Part", "Block")), strict=True):
        path.parent.mkdir()
        path.write_text("class {}({}):\n    def forward(self, x):\n        return x * 2\n".format(*bases))
    place = place_of(Sources(paths, "Block", {"": "Block"}), "", WhereToLook(patterns=("no such line",)))
    assert str(place).endswith("line 1: `class Block`")
