from __future__ import annotations

import ast
import importlib.resources
import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trtllm_port.errors import ConfigError, DiskSpaceError, WorkspaceError
from trtllm_port.porting import registry_file, write
from trtllm_port.porting.blank import blank_source
from trtllm_port.porting.templates import render_template
from trtllm_port.porting.transaction import JOURNAL, STAGE, settle
from trtllm_port.porting.write import WrittenPort
from trtllm_port.registry.manifest import edited_files
from trtllm_port.registry.ports import find_port

TEST = '"""Test."""\n\n\ndef test_toy() -> None:\n    assert True\n'


@dataclass(frozen=True)
class FakeSource:
    """A generated port as small as can be."""

    architecture: str = "ToyForCausalLM"
    port_class: str = "ToyForCausalLM"
    files: dict[str, str] = field(
        default_factory=lambda: {
            "config.py": '"""Sizes."""\n\nSIZES = {"{{ not a template }}": 1}\n',
            "model.py": '"""Toy."""\n\nfrom .config import SIZES\n\n\nclass ToyForCausalLM:\n    sizes = SIZES\n',
            "convert.py": '"""Weights."""\n\nWEIGHT_MAP: dict[str, str] = {}\n',
        }
    )


def put(source: write.Source, *, workspace: Path, name: str, force: bool = False, **origin: object) -> WrittenPort:
    return write.write_port(source, workspace=workspace, name=name, test=TEST, force=force, origin=origin)


def snapshot(workspace: Path) -> dict[str, bytes | None]:
    paths = sorted(workspace.rglob("*"))
    return {str(path.relative_to(workspace)): path.read_bytes() if path.is_file() else None for path in paths}


def test_a_port_is_written_registered_and_importable(tmp_path: Path) -> None:
    port = put(FakeSource(), workspace=tmp_path / "work", name="toy")
    files = [name for name, content in snapshot(tmp_path / "work").items() if content is not None]
    assert sorted(port.written) == sorted(files)
    assert files == [
        "examples/toy/README.md",
        "examples/toy/convert_checkpoint.py",
        "models/__init__.py",
        "models/toy/__init__.py",
        "models/toy/config.py",
        "models/toy/convert.py",
        "models/toy/model.py",
        "models/toy/port.json",
        "models/trtllm-port.toml",
        "pyproject.toml",
        "tests/test_toy.py",
    ]
    assert find_port(tmp_path / "work", "ToyForCausalLM").cls.sizes == {"{{ not a template }}": 1}


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        put(FakeSource(), workspace=tmp_path / place / "work", name="toy", ledger={"used": ["x"]})
    first = snapshot(tmp_path / "a")
    assert first == snapshot(tmp_path / "b")
    put(FakeSource(), workspace=tmp_path / "a" / "work", name="toy", force=True, ledger={"used": ["x"]})
    assert first == snapshot(tmp_path / "a")


def test_ports_share_a_workspace_in_sorted_order(tmp_path: Path) -> None:
    for letter in "CAB":
        files = {name: text.replace("Toy", letter) for name, text in FakeSource().files.items()}
        source = FakeSource(f"{letter}ForCausalLM", f"{letter}ForCausalLM", files)
        put(source, workspace=tmp_path, name=letter.lower())
    assert (tmp_path / "models" / "__init__.py").read_text() == (
        '"""The ports of this workspace: Hugging Face\'s architecture name → port class."""\n\n'
        "from __future__ import annotations\n\n"
        "from .a import AForCausalLM\nfrom .b import BForCausalLM\nfrom .c import CForCausalLM\n\n"
        "MODEL_MAP: dict[str, type] = {\n"
        '    "AForCausalLM": AForCausalLM,\n    "BForCausalLM": BForCausalLM,\n    "CForCausalLM": CForCausalLM,\n}\n'
    )


def test_edits_are_noticed(tmp_path: Path) -> None:
    package = put(FakeSource(), workspace=tmp_path, name="toy").package_dir
    assert edited_files(package) == []
    (package / "model.py").write_text("mine\n")
    (package / "convert.py").unlink()
    assert edited_files(package) == ["convert.py", "model.py"]
    (package / "port.json").unlink()
    assert edited_files(package) is None


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", "{}", '{"name": "toy", "files": []}', '{"files": {}}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    package = put(FakeSource(), workspace=tmp_path, name="toy").package_dir
    (package / "port.json").write_text(content)
    with pytest.raises(WorkspaceError, match=r"port\.json"):
        edited_files(package)
    (tmp_path / STAGE).mkdir()
    (tmp_path / STAGE / JOURNAL).write_text(content)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        settle(tmp_path)


def test_an_existing_port_is_refused_and_untouched(tmp_path: Path) -> None:
    package = put(FakeSource(), workspace=tmp_path, name="toy").package_dir
    (package / "model.py").write_text("# my edit\n")
    before = snapshot(tmp_path)
    with pytest.raises(WorkspaceError, match="port `toy` exists already: `models/toy`") as caught:
        put(FakeSource(), workspace=tmp_path, name="toy")
    assert "--force" in str(caught.value.hint)
    with pytest.raises(WorkspaceError, match="`ToyForCausalLM` is served by port `toy` already"):
        put(FakeSource(), workspace=tmp_path, name="toy2")
    assert snapshot(tmp_path) == before


def test_force_replaces_the_port_and_its_registration(tmp_path: Path) -> None:
    package = put(FakeSource(), workspace=tmp_path, name="toy").package_dir
    (package / "model.py").write_text("# my edit\n")
    (tmp_path / "pyproject.toml").write_text("# mine\n")
    put(FakeSource(), workspace=tmp_path, name="toy", force=True)
    assert edited_files(package) == []
    assert (tmp_path / "pyproject.toml").read_text() == "# mine\n"
    put(FakeSource(), workspace=tmp_path, name="toy2", force=True)
    assert find_port(tmp_path, "ToyForCausalLM").name == "toy2"
    assert ".toy " not in (tmp_path / "models" / "__init__.py").read_text()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)])
def test_whatever_goes_wrong_nothing_half_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, force: bool
) -> None:
    workspace = tmp_path / "work"
    if force:
        put(FakeSource(), workspace=workspace, name="toy")
    before = snapshot(tmp_path)

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(write, "add_port", fail)  # the last step
    expected = DiskSpaceError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        put(FakeSource(), workspace=workspace, name="toy", force=force)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["", "a-b", "a b", "1a", "class", "../up", "a/b", "/abs", ".", "_private", "é", "a.b"])
def test_a_name_that_is_no_package_inside_models_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be named"):
        put(FakeSource(), workspace=tmp_path, name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["models", "models/toy", "examples", "tests"])
def test_a_link_out_of_the_workspace_is_refused(tmp_path: Path, part: str) -> None:
    (tmp_path / "outside").mkdir()
    link = tmp_path / "work" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(WorkspaceError, match="leads to"):
        put(FakeSource(), workspace=tmp_path / "work", name="toy", force=True)
    assert not list((tmp_path / "outside").iterdir())


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    with pytest.raises(WorkspaceError, match="not a directory"):
        put(FakeSource(), workspace=tmp_path / "work", name="toy")


EDITED = '''"""Mine."""

import logging  # mine

from .beta import BetaForCausalLM  # keep

log = logging.getLogger(__name__)

MODEL_MAP = {
    # newest first? no: sorted
    "BetaForCausalLM": BetaForCausalLM,  # my note
    "CetaForCausalLM": BetaForCausalLM  # no comma here
}
log.debug("é %d", len(MODEL_MAP))
'''


@pytest.mark.parametrize("letter", ["Alpha", "Bz", "Zeta"])
def test_edits_of_the_registry_survive(letter: str) -> None:
    package, cls = letter.lower(), f"{letter}ForCausalLM"
    text = registry_file.add_port(EDITED, package=package, architecture=cls, class_name=cls)
    added = {f"from .{package} import {cls}", f'    "{cls}": {cls},'}
    lines = text.splitlines()
    assert added < set(lines)
    kept = [line.replace("BetaForCausalLM,  # no comma", "BetaForCausalLM  # no comma") for line in lines]
    assert [line for line in kept if line not in added] == EDITED.splitlines()
    assert ast.unparse(ast.parse(text)).count(f"'{cls}'") == 1
    assert registry_file.registered_package(text, cls) == package
    assert registry_file.add_port(text, package=package, architecture=cls, class_name=cls) == text


@pytest.mark.parametrize(("text", "what"), [("MODEL_MAP = dict()\n", "no dictionary"), ("MODEL_MAP = {\n", "line 1")])
def test_a_registry_that_cannot_be_edited_gets_the_lines_to_add(text: str, what: str) -> None:
    with pytest.raises(WorkspaceError, match=what) as caught:
        registry_file.add_port(text, package="toy", architecture="ToyForCausalLM", class_name="ToyForCausalLM")
    assert "from .toy import ToyForCausalLM" in str(caught.value.hint)


def test_a_template_and_its_values_must_agree() -> None:
    with pytest.raises(WorkspaceError, match="disagree about: surplus"):
        render_template("workspace", {"package": "p", "distribution": "p", "version": "1", "surplus": "x"})


def test_the_manifest_tells_where_the_port_comes_from(tmp_path: Path) -> None:
    package = put(FakeSource(), workspace=tmp_path, name="toy", transformers="5.0").package_dir
    manifest = json.loads((package / "port.json").read_text())
    assert manifest["port_class"] == "ToyForCausalLM"
    assert manifest["transformers"] == "5.0"
    assert str(tmp_path) not in json.dumps(manifest)


def test_what_is_written_passes_the_linter(tmp_path: Path) -> None:
    put(FakeSource(), workspace=tmp_path, name="toy")
    assert_passes_the_linter(tmp_path)


def assert_passes_the_linter(workspace: Path) -> None:
    pytest.importorskip("ruff")
    project = Path(__file__).parents[2] / "pyproject.toml"
    for command in ("check", "format"):
        words = [sys.executable, "-m", "ruff", command, "--config", str(project), "."]
        words += ["--check"] if command == "format" else []
        done = subprocess.run(words, cwd=workspace, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_blank_port_passes_the_linter_and_its_own_test(tmp_path: Path) -> None:
    source = blank_source("story_teller")
    port = write.write_port(source, workspace=tmp_path, name="story_teller", test=source.test)
    assert source.port_class == source.architecture == "StoryTellerForCausalLM"
    assert (port.package_dir / "model.py").read_text().count("# TODO") >= 4
    assert_passes_the_linter(tmp_path)
    test = runpy.run_path(str(tmp_path / "tests" / "test_story_teller.py"))
    test["test_port_defines_a_network"]()


def test_a_blank_port_reads_a_config_that_transformers_does_not_know(tmp_path: Path) -> None:
    put(blank_source("mine", "MyOwnForCausalLM"), workspace=tmp_path, name="mine")
    config = {"architectures": ["MyOwnForCausalLM"], "model_type": "my-own", "torch_dtype": "bfloat16", "vocab_size": 9}
    config |= {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"hidden_act": "silu", "max_position_embeddings": 16, "rms_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    config_class = find_port(tmp_path, "MyOwnForCausalLM").cls.config_class
    made = config_class.from_hugging_face(tmp_path)
    assert (made.dtype, made.head_dim, made.num_key_value_heads) == ("bfloat16", 4, 2)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "rms_norm_eps"}))
    with pytest.raises(ConfigError, match="lacks rms_norm_eps"):
        config_class.from_hugging_face(tmp_path)


@pytest.mark.slow
def test_a_workspace_can_be_installed(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    workspace, site = tmp_path / "acme", tmp_path / "site"
    source = blank_source("story")
    write.write_port(source, workspace=workspace, name="story", test=source.test)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, str(workspace)], check=True)
    command = [sys.executable, "-m", "trtllm_port", "models", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    (port,) = json.loads(done.stdout)["ports"]
    assert (port["name"], port["origin"], port["edited"]) == ("story", "acme_ports", [])


def test_bytecode_that_pip_leaves_beside_the_templates_is_not_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Path(str(importlib.resources.files("trtllm_port.scaffolds")))
    shutil.copytree(installed / "workspace", tmp_path / "workspace")
    values = dict.fromkeys(json.loads((installed / "workspace" / "cookiecutter.json").read_text()), "toy")
    before = render_template("workspace", values)
    for folder in [path for path in (tmp_path / "workspace").rglob("*") if path.is_dir()]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        (folder / "__pycache__" / "model.pyc").write_bytes(b"\xa7\r\r\n")
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    assert render_template("workspace", values) == before
