"""The files of a workspace, and what `summarize` writes, hold any text."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hostile_texts import HOSTILE, KEYS, Bodies

from trtllm_port.evaluation.datasets import Article, ArticleSet
from trtllm_port.evaluation.summarize_result import Side, SummarizeResult, write_result
from trtllm_port.foundation.atomic_files import write_json
from trtllm_port.foundation.quoting import require_name
from trtllm_port.porting.write import write_port


def test_templates_are_rendered_once(tmp_path: Path, import_file: Callable[[Path], ModuleType]) -> None:
    """Values with the marks of templates come out as they went in, into every file of a port."""
    port = write_port(Bodies(), workspace=tmp_path, name="toy", test="# {{ a }}{% b %}\n", origin={"texts": HOSTILE})
    assert import_file(port.package_dir / "config.py").TEXTS == HOSTILE
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
