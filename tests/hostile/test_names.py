"""Names and expressions, where a language has nothing to escape with: what is no name is refused."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hostile_texts import HOSTILE, Bodies, hostile, parts

from trtllm_port.codegen.ir.formatting import reference
from trtllm_port.codegen.ir.nodes import Instance
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.codegen.solve.symbols import field_values, symbols_of
from trtllm_port.codegen.write.source import config_file
from trtllm_port.errors import PortError
from trtllm_port.foundation.quoting import require_name
from trtllm_port.porting.blank import blank_source
from trtllm_port.porting.registry_file import add_port
from trtllm_port.porting.write import write_port

NOT_NAMES = [text for text in HOSTILE if not text.isascii() or not text.isidentifier() or text == "class"]


@pytest.mark.parametrize("text", NOT_NAMES, ids=[ascii(text)[:40] for text in NOT_NAMES])
def test_what_is_no_name_names_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(PortError):
        require_name(text, "a class")
    with pytest.raises(PortError):
        config_file({text: "int"}, {}, config_class="C", title="C", hf_config_class="C")
    with pytest.raises(PortError):
        config_file({}, {}, config_class=text, title="C", hf_config_class="C")
    with pytest.raises(PortError):
        blank_source("mine", text or "\0")
    with pytest.raises(PortError):
        blank_source(text)
    for names in ({"package": text}, {"architecture": text}, {"class_name": text}):
        with pytest.raises(PortError):
            add_port("MODEL_MAP = {}\n", **({"package": "a", "architecture": "A", "class_name": "A"} | names))
    for field_name in ("architecture", "port_class"):
        with pytest.raises(PortError):
            write_port(Bodies(**{field_name: text}), workspace=tmp_path / "w", name="mine", test="")
    with pytest.raises(PortError):
        write_port(Bodies(), workspace=tmp_path / "w", name=text, test="")
    assert not (tmp_path / "w").exists()
    if not all(part.isdecimal() or part.isidentifier() for part in text.split(".")):  # modules in lists and modules
        with pytest.raises(PortError):
            reference(f"layers.{text}")


def test_a_registry_keeps_the_keys_that_it_has() -> None:
    keys = [text for text in HOSTILE if len(text) < 100]
    for opened, between, closed in (("", ", ", ""), ("\n    ", ",\n    ", ",\n")):
        entries = between.join(f"{text!r}: B" for text in keys)
        before = f"X = '\u2028\x0b\x0c'\nfrom .b import B\n\nMODEL_MAP = {{{opened}{entries}{closed}}}\n"
        after = add_port(before, package="a", architecture="A", class_name="A")
        node = ast.parse(after).body[-1]
        assert isinstance(node, ast.Assign)
        assert isinstance(node.value, ast.Dict)
        assert {ast.literal_eval(key) for key in node.value.keys if key is not None} == {*keys, "A"}
        added = parts('from .a import A\n{"A": A}\n')
        assert parts(after) == parts(before) + added - Counter(["Module", "Expr", "Dict"])


@hostile
def test_expressions_read_keys_and_tell_kinds_that_are_words_only(text: str) -> None:
    """Whatever the solver finds is Python over the config's fields, with the value that it was found for."""
    values = [
        {text: size, "kind": text, "rope": {text: size}, "sizes": [text, "b"], "of": [size, 1]} for size in (8, 12)
    ]
    instances = [
        SimpleNamespace(
            trace=SimpleNamespace(sample=SimpleNamespace(values=each, config=SimpleNamespace())), layer_idx=None
        )
        for each in values
    ]
    atoms = symbols_of(cast("list[Instance]", instances))
    for found, column in atoms.items():
        config = [SimpleNamespace(**each) for each in values]
        assert [eval(found, {"__builtins__": {}}, {"config": one}) for one in config] == list(column)
    conditions = Solver(
        {"config.kind": (text, "other")},
    ).solve((True, False))
    if conditions is not None:
        kinds = [SimpleNamespace(kind=kind) for kind in (text, "other")]
        assert [eval(conditions.text, {"__builtins__": {}}, {"config": one}) for one in kinds] == [True, False]
    assert set(field_values({text: 1})) <= {text if text.isidentifier() else ""}
