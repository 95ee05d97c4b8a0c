"""Every rule of the architecture can be broken: each check is shown a small tree that breaks it, and says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import architecture_checks as checks
import architecture_rules as rules
import pytest
from architecture_tree import SourceTree, read_tree

ROOT = Path(__file__).parents[2]
Write = Callable[..., SourceTree]
TWO_LINES = '"""What it is for.\n\nIn: this. Out: that.\n"""\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a source tree of these files and reads it: `write(**{"foundation/files": "import os"})`."""

    def written(**files: str) -> SourceTree:
        for name, text in files.items():
            top = name.partition("/")[0] in ("layers", "runtime", "scaffolds")
            path = tmp_path / ("" if top else "trtllm_port") / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_tree(tmp_path)

    return written


def import_of(module: str, *names: str) -> str:
    return f"from trtllm_port.{module} import {', '.join(names) or 'x'}\n"


WAYS = {
    "at the top": "{}",
    "as a whole": "import trtllm_port.porting.create as create\n",
    "in a function": "def f():\n    {}",
    "for type checkers": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}",
    "by name": "import importlib\nimportlib.import_module('trtllm_port.porting.create')\n",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_import_of_a_later_room_is_told(write: Write, way: str) -> None:
    tree = write(**{"registry/ports": way.format(import_of("porting.create")), "porting/create": ""})
    (problem,) = checks.forbidden_imports(tree)
    line = way.format("x").count("\n", 0, way.find("porting") if "porting" in way else way.find("{")) + 1
    assert problem.startswith(f"trtllm_port/registry/ports.py:{line} imports trtllm_port.porting.create")
    assert "`registry` may not import `porting`: it stands later in the order; let the caller" in problem
    assert not checks.forbidden_imports(write(**{"registry/ports": "", "porting/create": import_of("registry.ports")}))


def test_a_real_arrow_turned_round_is_told(tmp_path: Path) -> None:
    """In a copy of the source tree itself, in which the other problems are counted before."""
    for folder in ("trtllm_port", "layers", "runtime", "scaffolds"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    tree = read_tree(tmp_path)
    before = {*checks.forbidden_imports(tree), *checks.circles(tree)}
    arrow = next(i for i in tree.imports if i.by.room == "conversion" and i.module and i.module.room == "registry")
    assert arrow.module is not None
    path = tmp_path / arrow.module.file
    line = len(path.read_text().splitlines()) + 3
    path.write_text(f"{path.read_text()}\n\ndef late():\n    import {arrow.by.name}\n")
    tree = read_tree(tmp_path)
    told = {*checks.forbidden_imports(tree), *checks.circles(tree)} - before
    place = f"{arrow.module.file}:{line + 1} imports {arrow.by.name}"
    assert any(problem.startswith(f"{place}: `registry` may not import `conversion`") for problem in told)
    assert any("a circle: " in problem and place in problem for problem in told)


def test_what_knows_less_than_stands_before_it_is_told(write: Write) -> None:
    tree = write(**{"huggingface/configs": "", "layers/operations/unary": import_of("huggingface.configs")})
    (problem,) = checks.forbidden_imports(tree)
    assert problem.startswith("layers/operations/unary.py:1 imports trtllm_port.huggingface.configs.x: ")
    assert "a function is given tensors and numbers" in problem


def test_a_stage_that_imports_another_is_told(write: Write) -> None:
    files = {"conversion/pipeline": "", "building/checkpoint": import_of("conversion.pipeline")}
    (problem,) = checks.forbidden_imports(write(**files))
    assert "`building` may not import `conversion`: stages do not know each other" in problem
    assert not checks.forbidden_imports(write(**{**files, "building/checkpoint": ""}))
    assert rules.objection("verification.sides", "conversion") is None
    assert rules.objection("verification.judge", "conversion") is not None
    assert rules.objection("registry", "foundation") is None


def test_a_circle_is_told_import_by_import(write: Write) -> None:
    checking = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    " + import_of("foundation.c")
    tree = write(
        **{
            "foundation/a": import_of("foundation.b"),
            "foundation/b": checking,
            "foundation/c": "def f():\n    " + import_of("foundation", "a"),
            "foundation/d": import_of("foundation.a"),
        }
    )
    (problem,) = checks.circles(tree)
    for place in ("a.py:1 imports", "b.py:3 imports", "c.py:2 imports"):
        assert f"trtllm_port/foundation/{place}" in problem
    assert "d.py" not in problem
    assert not checks.circles(write(**{"foundation/b": ""}))


def test_every_knot_is_told_once(write: Write) -> None:
    pairs = {"a": "b", "b": "a", "c": "d", "d": "c", "e": "a"}
    files = {f"foundation/{name}": import_of(f"foundation.{other}") for name, other in pairs.items()}
    assert len(checks.circles(write(**files))) == 2


def test_a_17th_file_is_told(write: Write) -> None:
    files = {f"foundation/f{number:02}": "" for number in range(rules.MAX_FILES)}
    assert not checks.crowded_rooms(write(**files))
    (problem,) = checks.crowded_rooms(write(**files, **{"foundation/__init__": ""}))
    assert problem.startswith("`foundation` has 17 files, at most 16")


def test_nine_levels_are_told(write: Write) -> None:
    files = {f"foundation/f{n}": import_of(f"foundation.f{n + 1}") for n in range(rules.MAX_LEVELS - 1)}
    last = f"foundation/f{rules.MAX_LEVELS - 1}"
    assert not checks.deep_rooms(write(**files, **{last: ""}))
    beyond = {last: import_of(f"foundation.f{rules.MAX_LEVELS}"), f"foundation/f{rules.MAX_LEVELS}": ""}
    (problem,) = checks.deep_rooms(write(**files, **beyond))
    assert problem.startswith("`foundation` has 9 levels, at most 8: trtllm_port/foundation/f0.py:1, ")


def test_levels_are_counted_beside_a_circle(write: Write) -> None:
    tree = write(**{"foundation/a": import_of("foundation.b"), "foundation/b": import_of("foundation.a")})
    assert not checks.deep_rooms(tree)


@pytest.mark.parametrize("text", ["import transformers", "from transformers.cache_utils import Cache"])
def test_transformers_elsewhere_is_told(write: Write, text: str) -> None:
    files = {"huggingface/models": text, "evaluation/prompts": f"def f():\n    {text}\n"}
    (problem,) = checks.homeless_imports(write(**files))
    assert problem.startswith("trtllm_port/evaluation/prompts.py:2 imports transformers")
    assert "in `huggingface` only" in problem
    (problem,) = checks.homeless_imports(write(**{**files, "evaluation/prompts": "import huggingface_hub.utils\n"}))
    assert "huggingface_hub is imported in `huggingface` only" in problem


def test_a_room_without_a_place_and_a_place_without_a_room_are_told(write: Write) -> None:
    problems = checks.unknown_rooms(write(**{"attic/box": ""}))
    assert problems[0].startswith("trtllm_port/attic/box.py is in `attic`, which is no room")
    assert any(problem.startswith("`foundation` is empty") for problem in problems)


def test_a_room_that_says_nothing_of_itself_is_told(write: Write) -> None:
    files = {"foundation/__init__": TWO_LINES, "foundation/files": '"""Files."""\n', "registry/__init__": TWO_LINES}
    assert not checks.undescribed(write(**files))
    problems = checks.undescribed(
        write(
            **{**files, "registry/__init__": '"""Ports."""\n', "foundation/files": "", "porting/a": "", "porting/b": ""}
        )
    )
    assert sorted(problem.partition(":")[0] for problem in problems) == [
        "`porting` has no `__init__.py`",
        "trtllm_port/foundation/files.py",
        "trtllm_port/porting/a.py",
        "trtllm_port/porting/b.py",
        "trtllm_port/registry/__init__.py",
    ]


def test_errors_that_import_ours_are_told(write: Write) -> None:
    assert checks.ours_in_errors(write(errors=import_of("foundation.files"), **{"foundation/files": ""}))
    assert not checks.ours_in_errors(write(errors="import os\n"))


def test_the_command_line_used_elsewhere_is_told(write: Write) -> None:
    tree = write(**{"demo/tour": import_of("cli.app"), "cli/app": "", "__main__": import_of("cli.app")})
    (problem,) = checks.command_line_used(tree)
    assert problem.startswith("trtllm_port/demo/tour.py:1 imports trtllm_port.cli.app.x")


@pytest.mark.parametrize("text", ["import torch\n", import_of("layers.definition.tensor")])
def test_a_heavy_start_is_told(write: Write, text: str) -> None:
    body = f"def f():\n    {text}"
    checking = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {text}"
    tree = write(**{"cli/app": text, "cli/commands/run": body, "cli/commands/build": checking, "demo/tour": text})
    (problem,) = checks.heavy_start(tree)
    assert problem.startswith("trtllm_port/cli/app.py:1 imports ")


def test_what_is_too_long_is_told(write: Write) -> None:
    lines = "    x = 1\n"
    fits = write(
        **{
            "foundation/a": "\n" * rules.MAX_LINES,
            "foundation/b": "def f(a, b, c, d, e, f, g, *, h):\n" + lines * (rules.MAX_FUNCTION - 1),
            "cli/app": "def f(a, b, c, d, e, f, g, h, i): ...\n",
        }
    )
    assert not [*checks.long_files(fits), *checks.long_functions(fits), *checks.many_parameters(fits)]
    tree = write(
        **{
            "foundation/a": "\n" * (rules.MAX_LINES + 1),
            "foundation/b": "class C:\n  def f(self, a, b, c, d, e, f, g, h, *, i):\n" + lines * rules.MAX_FUNCTION,
        }
    )
    assert [problem.partition(":")[0] for problem in checks.long_files(tree)] == ["trtllm_port/foundation/a.py"]
    (problem,) = checks.long_functions(tree)
    assert problem.startswith("trtllm_port/foundation/b.py:C.f (line 2): 61 lines")
    (problem,) = checks.many_parameters(tree)
    assert problem.startswith("trtllm_port/foundation/b.py:C.f (line 2): 9 parameters")


def test_a_relative_import_is_refused(write: Write) -> None:
    with pytest.raises(AssertionError, match=r"foundation/a\.py:1: a relative import"):
        write(**{"foundation/a": "from . import b\n"})


def test_templates_are_no_modules(write: Write) -> None:
    tree = write(**{"scaffolds/__init__": "", "scaffolds/port/model": "import transformers\n"})
    assert list(tree.modules) == ["trtllm_port.scaffolds"]


def test_a_file_is_in_the_room_of_its_folder(write: Write) -> None:
    tree = write(
        **{"layers/config/rope": "", "codegen/__init__": "", "inspection": "", "__main__": "", "errors": "", "new": ""}
    )
    assert {name.removeprefix("trtllm_port."): module.room for name, module in tree.modules.items()} == {
        "layers.config.rope": "layers.config",
        "codegen": "codegen",
        "inspection": "inspection",
        "__main__": "cli",
        "errors": "",
        "new": "",
    }
