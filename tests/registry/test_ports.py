from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from trtllm_port.errors import RegistryError
from trtllm_port.registry import ports as registry
from trtllm_port.registry.ports import find_port, list_ports


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    add_port(tmp_path, "alpha", "AlphaForCausalLM", "sizes = (1, 2)")
    return tmp_path


def add_port(workspace: Path, name: str, architecture: str, config: str) -> None:
    package = workspace / "models" / name
    package.mkdir(parents=True)
    (package.parent / "trtllm-port.toml").touch()
    (package / "__init__.py").write_text(f"from .model import {architecture}\n")
    (package / "config.py").write_text(f"{config}\n")
    (package / "model.py").write_text(f"from .config import sizes\nclass {architecture}:\n    sizes = sizes\n")
    with (workspace / "models" / "__init__.py").open("a") as file:
        file.write(f"from .{name} import {architecture}\nMODEL_MAP = {{'{architecture}': {architecture}}}\n")


def test_a_port_is_found_by_architecture(workspace: Path) -> None:
    port = find_port(workspace, "AlphaForCausalLM")
    assert (port.name, port.cls.sizes, port.origin) == ("alpha", (1, 2), "workspace")
    assert port.package_dir == workspace / "models" / "alpha"


def test_nothing_else_changes(workspace: Path) -> None:
    before = list(sys.path)
    list_ports(workspace)
    assert sys.path == before
    assert "models" not in sys.modules
    assert not list(workspace.rglob("__pycache__"))


def test_the_same_source_gives_the_same_class(workspace: Path) -> None:
    assert find_port(workspace, "AlphaForCausalLM").cls is find_port(workspace, "AlphaForCausalLM").cls


def test_an_edit_of_equal_length_is_seen_at_once(workspace: Path) -> None:
    before = find_port(workspace, "AlphaForCausalLM")
    (workspace / "models" / "alpha" / "config.py").write_text("sizes = (3, 4)\n")
    after = find_port(workspace, "AlphaForCausalLM")
    assert (before.cls.sizes, after.cls.sizes) == ((1, 2), (3, 4))
    assert before.digest != after.digest


def test_workspaces_live_side_by_side(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    add_port(other, "alpha", "AlphaForCausalLM", "sizes = (5, 6)")
    sizes = [find_port(place, "AlphaForCausalLM").cls.sizes for place in (workspace, other, workspace)]
    assert sizes == [(1, 2), (5, 6), (1, 2)]


def test_an_unknown_architecture_names_the_known_the_near_and_the_way_out(workspace: Path) -> None:
    with pytest.raises(RegistryError, match="registered are AlphaForCausalLM; near is AlphaForCausalLM") as caught:
        find_port(workspace, "AlfaForCausalLM")
    assert "trtllm-port new" in str(caught.value.hint)


def test_an_empty_workspace_has_no_ports(tmp_path: Path) -> None:
    assert list_ports(tmp_path) == []
    with pytest.raises(RegistryError, match="no port is registered"):
        find_port(tmp_path, "AlphaForCausalLM")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("sizes = (1,", "line 1: '.' was never closed"),
        ("import torch\nsizes = torch.no_such_thing", "config.py, line 2: AttributeError"),
        ("from .absent import sizes", "config.py, line 1: ModuleNotFoundError"),
    ],
)
def test_a_broken_port_is_named_by_file_and_line(workspace: Path, line: str, what: str) -> None:
    (workspace / "models" / "alpha" / "config.py").write_text(f"{line}\n")
    for _ in range(2):  # a failed import leaves nothing that is taken for a good one
        with pytest.raises(RegistryError, match=what.replace("(", r"\(")):
            list_ports(workspace)


def test_a_registry_without_a_map_is_refused(workspace: Path) -> None:
    (workspace / "models" / "__init__.py").write_text("MODEL_MAP = []\n")
    with pytest.raises(RegistryError, match="no dictionary `MODEL_MAP`"):
        list_ports(workspace)


def test_installed_workspaces_are_found_through_their_entry_point(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    add_port(site, "beta", "BetaForCausalLM", "sizes = (7, 8)")
    (site / "models").rename(site / "acme_ports")
    monkeypatch.syspath_prepend(str(site))
    point = importlib.metadata.EntryPoint("acme", "acme_ports:MODEL_MAP", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints([point]))
    assert [(port.name, port.origin) for port in list_ports(workspace)] == [("alpha", "workspace"), ("beta", "acme")]
