"""The Python of a port that was generated holds any text as a text."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hostile_texts import BENIGN, HOSTILE, RUN, acts, hostile, parts, strings

from trtllm_port.codegen import PortSource
from trtllm_port.codegen.ir.formatting import formatted
from trtllm_port.codegen.write.classes import ClassText
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.codegen.write.source import config_file, convert_file, model_file
from trtllm_port.codegen.write.weight_names import WeightNames
from trtllm_port.foundation.quoting import docstring, literal, visible
from trtllm_port.layers.weights import Stack
from trtllm_port.porting.create import _test

ImportFile = Callable[[Path], ModuleType]


@hostile
def test_a_literal_is_the_value_and_nothing_else(text: str) -> None:
    value = {text: [text, {text: (text,)}], "x": text}
    written = literal(value)
    assert ast.literal_eval(written) == value
    assert "\n" not in written
    assert not acts(written)
    assert parts(written) == parts(literal({"a": ["a", {"a": ("a",)}], "x": "a"}))


def test_formatted_literals_are_as_the_formatter_writes_them() -> None:
    source = "".join(f"x = {literal(text)}\n" for text in HOSTILE if '"' not in text and len(text) < 100)
    assert formatted(source) == source


def test_what_has_no_literal_is_refused() -> None:
    class Sly:
        def __repr__(self) -> str:
            return RUN

    class SlyText(str):
        __slots__ = ()

        def __repr__(self) -> str:
            return RUN

    with pytest.raises(TypeError, match="Sly cannot be written"):
        literal({"a": Sly()})
    assert literal(SlyText("a")) == '"a"'


@hostile
def test_a_docstring_ends_where_it_should(text: str) -> None:
    source = f"{docstring(text)}\nx = 1\n"
    assert parts(source) == parts('"""a"""\nx = 1\n')
    assert ast.get_docstring(ast.parse(source), clean=False) == visible(text)


def test_the_config_of_a_port(tmp_path: Path, import_file: ImportFile) -> None:
    """All of the corpus as keys and values of what is built in, flat and nested, and in the docstrings."""

    def written(texts: list[str]) -> str:
        fixed: dict[str, Any] = {f"{i} {text}": {text: text, "list": [text, "x"]} for i, text in enumerate(texts)}
        fixed |= {f"{i} every {text}": [text, text] for i, text in enumerate(texts)}
        every = "\n".join(texts)
        return config_file({"size": "int"}, fixed, config_class="AConfig", title=every, hf_config_class=every)

    source = written(HOSTILE)
    assert parts(source) == parts(written(BENIGN))
    (tmp_path / "config.py").write_text(source, encoding="utf-8")
    fixed = import_file(tmp_path / "config.py").AConfig.FIXED
    assert len(fixed) == 2 * len(HOSTILE)
    for number, text in enumerate(HOSTILE):
        assert fixed[f"{number} {text}"] == {text: text, "list": [text, "x"]}
        assert fixed[f"{number} every {text}"].value == text


def test_the_weight_map_of_a_port(tmp_path: Path, import_file: ImportFile) -> None:
    def written(texts: list[str]) -> str:
        names = WeightNames(
            {f"{i} d {text}": text for i, text in enumerate(texts)},
            {f"{i} r {text}": text for i, text in enumerate(texts)},
            {(f"{i} t {text}", text): ((text, text), (Stack(0),)) for i, text in enumerate(texts)},
        )
        return convert_file(names, title="\n".join(texts), architecture="\n".join(texts))

    source = written(HOSTILE)
    assert parts(source) == parts(written(BENIGN))
    (tmp_path / "convert.py").write_text(source, encoding="utf-8")
    found = import_file(tmp_path / "convert.py").WEIGHT_MAP
    assert len(found) == 3 * len(HOSTILE)
    for number, text in enumerate(HOSTILE):
        assert found[f"{number} d {text}"].reason == text
        assert found[f"{number} r {text}"] == text
        assert found[f"{number} t {text}", text].targets == (text, text)


def test_the_model_of_a_port() -> None:
    """What a part that is left to be written says, and where it comes from."""

    def written(texts: list[str]) -> str:
        lines = [f"    raise NotImplementedError({literal(text)})" for text in texts]
        a = ClassText("A", ["class A:", "    pass", *lines], {"Module"}, set(), set())
        return model_file([a], title="\n".join(texts), config_class="AConfig", origin="\n".join(texts))

    assert parts(written(HOSTILE)) == parts(written(BENIGN))
    assert strings(written(HOSTILE)) >= set(HOSTILE)


def test_the_test_of_a_port(tmp_path: Path, import_file: ImportFile) -> None:
    def written(texts: list[str]) -> str:
        return _test(_source("A"), {f"{i} {text}": [text, {text: 1}] for i, text in enumerate(texts)})

    assert parts(written(HOSTILE)) == parts(written(BENIGN))
    (tmp_path / "port_test.py").write_text(written(HOSTILE), encoding="utf-8")
    config = import_file(tmp_path / "port_test.py").TINY_CONFIG
    back = json.loads(json.dumps(config))
    assert back == {f"{i} {text}": [text, {text: 1}] for i, text in enumerate(HOSTILE)}


def _source(architecture: str) -> PortSource:
    return PortSource(
        name="a",
        architecture=architecture,
        model_type="a",
        port_class="A",
        config_class="AConfig",
        files={},
        skeletons=(),
        ledger=Ledger(),
        hf_class="A",
    )
