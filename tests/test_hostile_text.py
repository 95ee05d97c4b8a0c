"""What others wrote, in every place of every file that is generated: nothing of it is run, and no structure changes."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from trtllm_port.cli.app import main
from trtllm_port.cli.terminal import console
from trtllm_port.codegen import PortSource
from trtllm_port.codegen.ir.formatting import formatted, reference
from trtllm_port.codegen.ir.nodes import Instance
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.codegen.solve.symbols import field_values, symbols_of
from trtllm_port.codegen.write.classes import ClassText
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.codegen.write.source import config_file, convert_file, model_file
from trtllm_port.codegen.write.weight_names import WeightNames
from trtllm_port.errors import PortError
from trtllm_port.evaluation.datasets import Article, ArticleSet
from trtllm_port.evaluation.summarize_result import Side, SummarizeResult, write_result
from trtllm_port.foundation.atomic_files import write_json
from trtllm_port.foundation.quoting import docstring, literal, one_line, require_name, shell_command, visible
from trtllm_port.layers.weights import Stack
from trtllm_port.porting.blank import blank_source
from trtllm_port.porting.create import _test
from trtllm_port.porting.registry_file import add_port
from trtllm_port.porting.write import write_port
from trtllm_port.registry.ports import find_port
from trtllm_port.verification.report.assembly import command
from trtllm_port.verification.report.html import html_page
from trtllm_port.verification.report.junit import junit_xml
from trtllm_port.verification.sides.preparation import Model

CANARY = "TRTLLM_PORT_CANARY"
RUN = f"__import__('os').environ.__setitem__('{CANARY}', 'sang')"
HOSTILE = [
    *("'", '"', "\\", "\\'", '\\"', "'''", '"""', '\\"""', "\\\\", "C:\\Users\\me", "\\N{DIGIT ONE}"),
    *("\\x41\\u0041", "\\"),
    *("\n", "\r", "\r\n", "\t", "\f", "\v", "\0", "a\0b", "\x1b", "\x7f", "\x85", "\x9b31m", "\u2028", "\u2029"),
    *("\ufeff", "\uffff"),
    *("{{ 7 * 7 }}", "{% raw %}", "{% endraw %}", "{# #}", "{{ cookiecutter.name }}", "{{", "}}", "{%", "${HOME}"),
    *("%(x)s", "{x}"),
    *("</script><script>alert(1)</script>", "]]>", "<!--", "-->", "<![CDATA[", "&amp;", "&#0;", '" onload="x'),
    *("' onload='x", "</td></table>", "</pre></code>"),
    *("`", "```", "|", "| a | b |\n|---|---|", "# h", "- x", "[a](javascript:x)", "---", "***", "<b>"),
    *("[bold red]x[/]", "[/]", "\\[x]", ":smile:"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\u202eabc\u202c", "\u2066x\u2069", "\u200f", "\ud800"),
    *("\udcff", "\U0001f600", "\U000e0041"),
    *("; touch x", "$(touch x)", "`touch x`", "&& x", "> x", "*", "~", "-rf", "", " ", "a b", "#", "# fmt: off"),
    *("é", "日本"),
    *(f'": {RUN}, #', f"': {RUN}, #", f'"\n{RUN}\n"', f"\\\": {RUN}, #", f'"""\n{RUN}\n"""', f"\n{RUN}\n"),
    *(f"{{{{ {RUN} }}}}", f"x\r{RUN}", f"x\x0c{RUN}"),
    *("a\\", f": {RUN}, #", f"\\', {RUN}, '", f'" + {RUN} + "', f"x: int = {RUN}  #", f"x = {RUN}", f"x.y[{RUN}]"),
    *("config.hidden_size", "self.config.x", "layer_idx", "class", "import os", "__class__", "a-b", "a.b", "0"),
    *("²", "ſ", "ﬁ"),
    "x" * 100_000,
    "\"\\'\n" * 25_000,
]  # fmt: skip
BENIGN = [f"text{number}" for number in range(len(HOSTILE))]
KEYS = [text for text in HOSTILE if len(text) < 100]
IDS = [ascii(text)[:40] for text in HOSTILE]
hostile = pytest.mark.parametrize("text", HOSTILE, ids=IDS)


@pytest.fixture(autouse=True)
def canary() -> Iterator[None]:
    """Nothing of what others wrote is run."""
    os.environ.pop(CANARY, None)
    yield
    assert CANARY not in os.environ


def parts(source: str) -> Counter[str]:
    """What a Python file consists of, but for the text of its strings: kinds of nodes, and every name."""
    nodes = list(ast.walk(ast.parse(source)))
    names = (getattr(node, key, None) for node in nodes for key in ("id", "attr", "name", "arg", "module"))
    return Counter([*(type(node).__name__ for node in nodes), *(name for name in names if isinstance(name, str))])


def strings(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def acts(text: str) -> set[str]:
    """The characters of a text that do something on a terminal, or are none."""
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return {c for c in text if unicodedata.category(c) in kinds or unicodedata.bidirectional(c) in directions} - {
        *"\n\t"
    }


def load(source: str, path: Path) -> Any:
    """Import a text as a module."""
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


# Python


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


def test_the_config_of_a_port(tmp_path: Path) -> None:
    """All of the corpus as keys and values of what is built in, flat and nested, and in the docstrings."""

    def written(texts: list[str]) -> str:
        fixed: dict[str, Any] = {f"{i} {text}": {text: text, "list": [text, "x"]} for i, text in enumerate(texts)}
        fixed |= {f"{i} every {text}": [text, text] for i, text in enumerate(texts)}
        every = "\n".join(texts)
        return config_file({"size": "int"}, fixed, config_class="AConfig", title=every, hf_config_class=every)

    source = written(HOSTILE)
    assert parts(source) == parts(written(BENIGN))
    fixed = load(source, tmp_path / "hostile_config.py").AConfig.FIXED
    assert len(fixed) == 2 * len(HOSTILE)
    for number, text in enumerate(HOSTILE):
        assert fixed[f"{number} {text}"] == {text: text, "list": [text, "x"]}
        assert fixed[f"{number} every {text}"].value == text


def test_the_weight_map_of_a_port(tmp_path: Path) -> None:
    def written(texts: list[str]) -> str:
        names = WeightNames(
            {f"{i} d {text}": text for i, text in enumerate(texts)},
            {f"{i} r {text}": text for i, text in enumerate(texts)},
            {(f"{i} t {text}", text): ((text, text), (Stack(0),)) for i, text in enumerate(texts)},
        )
        return convert_file(names, title="\n".join(texts), architecture="\n".join(texts))

    source = written(HOSTILE)
    assert parts(source) == parts(written(BENIGN))
    found = load(source, tmp_path / "hostile_convert.py").WEIGHT_MAP
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


def test_the_test_of_a_port(tmp_path: Path) -> None:
    def written(texts: list[str]) -> str:
        return _test(_source("A"), {f"{i} {text}": [text, {text: 1}] for i, text in enumerate(texts)})

    assert parts(written(HOSTILE)) == parts(written(BENIGN))
    config = load(written(HOSTILE), tmp_path / "hostile_test.py").TINY_CONFIG
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


# names: where a language has nothing to escape with


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


# files of a workspace


@dataclass(frozen=True)
class Bodies:
    """A port whose files hold what would be templates."""

    architecture: str = "ToyForCausalLM"
    port_class: str = "ToyForCausalLM"
    files: dict[str, str] = field(
        default_factory=lambda: {
            "config.py": f"TEXTS = {literal([*HOSTILE])}\n",
            "model.py": "from .config import TEXTS\n\n\nclass ToyForCausalLM:\n    texts = TEXTS\n",
            "convert.py": "WEIGHT_MAP = {}\n",
        }
    )


def test_templates_are_rendered_once(tmp_path: Path) -> None:
    """Values with the marks of templates come out as they went in, into every file of a port."""
    port = write_port(Bodies(), workspace=tmp_path, name="toy", test="# {{ a }}{% b %}\n", origin={"texts": HOSTILE})
    module = load((port.package_dir / "config.py").read_text(encoding="utf-8"), tmp_path / "toy_config.py")
    assert module.TEXTS == HOSTILE
    assert json.loads((port.package_dir / "port.json").read_text(encoding="utf-8"))["texts"] == HOSTILE
    assert (tmp_path / "tests" / "test_toy.py").read_text() == "# {{ a }}{% b %}\n"


NAMES = [text for text in KEYS if text not in ("", ".") and "/" not in text and "\0" not in text][::3]


@pytest.mark.parametrize("text", NAMES, ids=[ascii(text)[:40] for text in NAMES])
def test_a_workspace_of_any_name(text: str, tmp_path: Path) -> None:
    try:
        (tmp_path / text).mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("no such name on this disk")
    workspace = tmp_path / text
    write_port(Bodies(), workspace=workspace, name="toy", test="")
    project = tomllib.loads((workspace / "pyproject.toml").read_text(encoding="utf-8"))
    (name,) = project["tool"]["setuptools"]["packages"]
    assert require_name(name, "a package") == name
    assert project["project"]["entry-points"] == {"trtllm_port.models": {name: f"{name}:MODEL_MAP"}}
    assert set(project) == {"build-system", "project", "tool"}


def test_the_readme_of_a_port_has_the_parts_of_any_other(tmp_path: Path) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt()
    kinds = []
    for number, architecture in enumerate(("A", "__A__", "_a_b_")):
        port = write_port(Bodies(architecture=architecture), workspace=tmp_path / str(number), name="toy", test="")
        text = (port.workspace / "examples" / "toy" / "README.md").read_text()
        kinds.append([token.type for token in parser.parse(text)])
    assert kinds[0] == kinds[1] == kinds[2]


def test_json_files_hold_any_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {text: text for text in HOSTILE})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {text: text for text in HOSTILE}


def test_texts_that_a_model_wrote_have_a_line_each(tmp_path: Path) -> None:
    texts = tuple(text for text in KEYS if not any("\ud800" <= c <= "\udfff" for c in text))
    scores = {"rouge1": tuple(1.0 for _ in texts)}
    numbers = {"output_tokens": tuple(1 for _ in texts), "seconds": 1.0, "rouge": {"rouge1": 1.0}}
    side = Side(executor="x", outputs=texts, rouge_per_sample=scores, **numbers)
    shown = {"dataset": "x", "samples": 1, "batch_size": 1, "output_len": 1, "max_input_len": 1, "note": "x"}
    result = SummarizeResult(**shown, engine=side, hugging_face=None, comparison=None)
    write_result(result, ArticleSet("x", tuple(Article(text, text) for text in texts)), tmp_path)
    lines = (tmp_path / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["trtllm"]["output"] for line in lines] == [*texts]
    assert len((tmp_path / "trtllm.out").read_text(encoding="utf-8").splitlines()) == len(texts)


# reports


def _report(text: str) -> dict[str, Any]:
    """A report that has a text in every place that holds one."""
    numbers = {"rel_l2": 0.1, "ratio": 4.0, "floor": 0.1, "token_ratio": 1.0, "linf_ratio": 1.0, "cosine": 0.9}
    tap = {"verdict": "fail", "metrics": numbers, "logic": None, "own": None, "logic_own": None, "positions": []}
    taps = [{**tap, "name": f"model.layers.{i}.{text}", "class_name": text, "note": text} for i in range(2)]
    taps.append({**tap, "name": text, "class_name": text, "note": text})
    cause = {"cause": text, "status": text, "evidence": text, "place": text}
    found = {
        "module": text,
        "class_name": text,
        "phase": text,
        "tap": text,
        "note": text,
        "order": 1,
        "causes": [cause],
    }
    found |= {"rel_l2": 0.1, "floor": 0.1, "ratio": 1.0, "end_to_end": 1.0, "inherited": 1.0}
    gate = {
        "name": text,
        "phase": text,
        "verdict": "fail",
        "value": 1.0,
        "threshold": 1.0,
        "reason": text,
        "source": text,
    }
    subject = dict.fromkeys(("model", "architecture", "port", "port_digest", "dtype"), text)
    stage = {"name": text, "verdict": "fail", "seconds": 1.0, "detail": text}
    excerpt = {"side": "port", "path": text, "first_line": 1, "lines": [text, text], "marked": [1], "note": text}
    return {
        **{"kind": "verify", "verdict": "fail", "summary": text, "executor": text, "seconds": 1.0, "rouge": None},
        "subject": {**subject, "random_weights": False, "seed": 0},
        "reference": {text: text},
        "stimulus": {"tokens": 2, "source": text, "decode_steps": 1, "batch_lengths": [], "limits": [text]},
        **{"first_divergence": text, "divergence": found, "divergences": [found, {**found, "module": text + "x"}]},
        **{"causes": [cause], "excerpts": [excerpt], "next_steps": [text], "stages": [stage], "gates": [gate]},
        **{"taps": taps, "ignored": {text: text}, "position_profile": {}, "versions": {text: text}},
        **{"not_exercised": [{"what": text, "reason": text}], "commands": [text]},
    }


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _tags(page: str) -> _Tags:
    parser = _Tags()
    parser.feed(page)
    parser.close()
    return parser


@hostile
def test_a_page_has_the_elements_of_any_other(text: str) -> None:
    if len(text) > 1000:
        text = text[:1000]
    page = html_page(_report(text))
    assert not acts(page)
    parser, benign = _tags(page), _tags(html_page(_report("a" if text else "")))
    code = ("code", "/code")  # backticks show where code begins
    assert [tag for tag in parser.tags if tag[0] not in code] == [tag for tag in benign.tags if tag[0] not in code]
    shown = visible(text)
    if "`" not in text and text.strip():
        assert any(shown in found for found in parser.texts)


@hostile
def test_a_junit_file_has_the_elements_of_any_other(text: str) -> None:
    written = junit_xml(_report(text))
    assert not acts(written)
    root = ElementTree.fromstring(written.encode())
    benign = ElementTree.fromstring(junit_xml(_report("a")).encode())
    assert [(e.tag, sorted(e.attrib)) for e in root.iter()] == [(e.tag, sorted(e.attrib)) for e in benign.iter()]
    (gate,) = [case for case in root.iter("testcase") if case.get("classname", "").endswith(".gates")]
    assert gate.get("name") == visible(f"{text}.{text}")


# terminals and shells


@hostile
def test_a_terminal_is_not_told_to_do_anything(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = text[:1000]
    console.line(text)
    console.note(text)
    console.warning(text)
    console.error(text, hint=text, kind="x", exit_code=1, as_json=False)
    console.table(["a", "b"], [[text, 1], [text, 2]], title=text)
    try:
        raise ValueError(text)
    except ValueError as error:
        console.trace(error)
    out, err = capsys.readouterr()
    for printed in (out, err):
        assert not acts(printed)
        assert printed.encode()
    assert out.split("\n")[0] == one_line(text)
    assert err.split("\n")[0] == one_line(text)
    lines = err.split("\n")
    assert sum(line.startswith("warning: ") for line in lines) == 1
    assert sum(line.startswith("hint: ") for line in lines) == 1
    if "\n" not in text and "\t" not in text:
        assert f"error: {visible(text)}".rstrip() in [line.rstrip() for line in lines]


def test_the_text_of_a_model_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.piece("one\ntwo\t\x1b[2J\rthree")
    assert capsys.readouterr().out == "one\ntwo\t\\x1b[2J\\rthree"


def test_messages_of_the_command_line_are_escaped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sly = "\x1b[2JPASS\nhint: [red]run `rm`\u202e"
    for words in (
        ["new", "--blank", "mine", "--workspace", str(tmp_path), "--architecture", sly],
        ["new", "--blank", sly, "--workspace", str(tmp_path)],
        ["inspect", f"./{sly}"],
        ["convert", "--model-dir", f"./{sly}", "--output-dir", sly],
        ["diff-layers", f"./{sly}"],
        ["inspect", "./\udcff"],
        ["run", "--engine-dir", sly, "--tokenizer-dir", sly],
        ["verify", f"--{sly}"],
        [sly],
    ):
        assert main(words) == 2
        printed = "".join(capsys.readouterr())
        assert not acts(printed)
        assert "\nhint: [red]" not in printed


#: A word cannot hold a NUL, nor surrogates that stand for no byte.
SHELL = [text for text in KEYS if "\0" not in text and not any("\ud800" <= c < "\udc80" for c in text)]


def shell_words(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def test_a_command_gives_a_shell_the_words_that_it_was_made_of() -> None:
    script = shell_command(SHELL)
    assert one_line(script) == script
    assert shell_words(script) == SHELL


def test_what_repeats_a_run_is_a_command_for_a_shell() -> None:
    model = cast("Model", SimpleNamespace(given="a b", workspace="$(c)", dtype="float32"))
    words = shell_words(command("verify", model, {"prompt-file": Path("it's"), "tokens": 5, "x": None, "random": True}))
    expected = "trtllm-port verify MODEL --workspace $(c) --dtype float32 --prompt-file it's --tokens 5 --random"
    assert words == [word.replace("MODEL", "a b") for word in expected.split()]


# the whole way


@pytest.mark.slow
def test_a_model_whose_config_is_hostile(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect`, `new` and `convert` take it; what its keys hold is built in, and what its port is tested with."""
    model, work = tmp_path / "a 'model' \x1b[2J\u202e", tmp_path / "a\n$(work)\udcff"
    shutil.copytree(tiny_llama, model)
    config = json.loads((model / "config.json").read_text())
    # flat ones are also changed one by one, which takes long: a few of them
    flat = {f"{text}_heads": 4 for text in [*KEYS[-12:], "\ud800"]} | {f"{text}_kind": text for text in KEYS[:6]}
    nested = {text: {text: [text, 1]} for text in KEYS if not text.startswith("_")}
    (model / "config.json").write_text(json.dumps(config | flat | {"nested": nested}))
    assert main(["inspect", str(model)]) == 0
    assert main(["new", str(model), "--workspace", str(work)]) == 0
    assert (
        main(["convert", "--model-dir", str(model), "--output-dir", str(tmp_path / "c"), "--workspace", str(work)]) == 0
    )
    report = tmp_path / "report"
    words = ["diff-layers", str(model), "--workspace", str(work), "--tokens", "40", "--report-dir", str(report)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert not acts(out + err)
    place = ["--workspace", str(work)]
    told = [line.removeprefix("next: ") for line in err.split("\n") if line.startswith("next: ")]
    assert [shell_words(line) for line in told] == [
        ["trtllm-port", "new", str(model)],
        ["trtllm-port", "verify", str(model), *place],
        ["trtllm-port", "build", "--checkpoint-dir", str(tmp_path / "c"), "--output-dir", "ENGINE", *place],
    ]
    (again,) = json.loads((report / "report.json").read_text(encoding="utf-8"))["commands"]
    assert shell_words(again)[:5] == ["trtllm-port", "diff-layers", str(model), *place]
    ElementTree.parse(report / "junit.xml")
    assert not acts((report / "report.html").read_text(encoding="utf-8"))
    fixed = find_port(work, "LlamaForCausalLM").cls.config_class.FIXED
    assert fixed["nested"] == nested
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "float32", "tests"],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
