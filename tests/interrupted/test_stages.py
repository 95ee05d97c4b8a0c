"""Killed at any file operation, a stage leaves the old or the new, complete.

Run again it succeeds, and nothing else stays.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killing import FILE_SYSTEMS, Case, behave, complete, kill_everywhere
from toy_ports import write_toy

from trtllm_port.building import build_engine
from trtllm_port.building.checkpoint import Checkpoint
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.foundation.publishing import Kind, output_directory
from trtllm_port.registry.manifest import edited_files
from trtllm_port.registry.ports import list_ports
from trtllm_port.runtime import EngineDirectory
from trtllm_port.verification import DiffSettings, diff, diff_layers
from trtllm_port.verification.bundle import save
from trtllm_port.verification.bundle.files import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

BOX = Kind(is_not="no box", marker="mark", names=("mark", "part*"), is_one=lambda place: (place / "mark").is_file())


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
@pytest.mark.parametrize("replaced", [False, True])
def test_an_output_directory(sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, replaced: bool) -> None:
    target = sandbox / "box"

    def fill(text: str) -> None:
        with output_directory(target, BOX) as directory:
            for name in ("part0", "part1", "mark"):
                (directory / name).write_text(text)

    def state() -> str:
        if not (target / "mark").is_file():
            return "none"
        found = {path.name: path.read_text() for path in target.iterdir() if not path.name.startswith(".")}
        text = found["mark"]
        assert found == dict.fromkeys(("part0", "part1", "mark"), text)
        return text

    between = behave(file_system, target, monkeypatch)
    if replaced:
        fill("old")
    kill_everywhere(Case(run=lambda: fill("new"), state=state, between=between), sandbox)


@pytest.mark.usefixtures("quick_templates")
@pytest.mark.parametrize(
    ("ports", "force", "file_system", "step"),
    [
        ("", False, "swaps", 20),
        ("AC", False, "swaps", 20),
        pytest.param("", False, "renames", 1, marks=pytest.mark.slow),
        pytest.param("AC", False, "swaps", 1, marks=pytest.mark.slow),
        pytest.param("ABC", True, "swaps", 1, marks=pytest.mark.slow),
    ],
)
def test_new(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch, ports: str, force: bool, file_system: str, step: int
) -> None:
    workspace = sandbox / "work"
    behave(file_system, sandbox, monkeypatch)
    for letter in ports:
        write_toy(workspace, letter, 1)

    def state() -> str:
        found = {port.name: port for port in list_ports(workspace) if port.origin == "workspace"}
        for letter in ports:
            assert f"toy_{letter.lower()}" in found
        assert all(edited_files(port.package_dir) == [] for port in found.values())
        assert all(port.cls.sizes == 1 for name, port in found.items() if name != "toy_b")
        new = found.get("toy_b")
        return "none" if new is None else {1: "old", 2: "new"}[new.cls.sizes]

    kill_everywhere(Case(run=lambda: write_toy(workspace, "B", 2, force=force), state=state), sandbox, step)


@pytest.mark.slow
@pytest.mark.parametrize(("file_system", "replaced"), [("swaps", False), *((each, True) for each in FILE_SYSTEMS)])
def test_convert(
    tiny_llama: Path,
    llama_workspace: Path,
    sandbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_system: str,
    replaced: bool,
) -> None:
    output = sandbox / "ckpt"
    between = behave(file_system, output, monkeypatch)
    if replaced:
        convert_checkpoint(tiny_llama, output, workspace=llama_workspace)
    dtypes = {"float32": "old", "float16": "new"}
    case = Case(
        run=lambda: convert_checkpoint(tiny_llama, output, workspace=llama_workspace, dtype="float16"),
        state=lambda: complete(lambda: dtypes[Checkpoint.read(output).dtype]),
        between=between,
    )
    kill_everywhere(case, sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_build(
    tiny_checkpoint: Path, llama_workspace: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str
) -> None:
    output = sandbox / "engine"
    between = behave(file_system, output, monkeypatch)

    def build(batch: int) -> None:
        build_engine(tiny_checkpoint, output, workspace=llama_workspace, backend="reference", max_batch_size=batch)

    def check() -> str:
        directory = EngineDirectory.read(output)
        directory.verify(directory.digests)
        return {1: "old", 2: "new"}[directory.build.max_batch_size]

    build(1)
    kill_everywhere(Case(run=lambda: build(2), state=lambda: complete(check), between=between), sandbox)


@pytest.fixture
def bundle_parts(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What `verify --save` hands to the saving; Hugging Face's numbers are recorded once."""
    kept: dict[str, Any] = {}

    def keep(target: Path, report: Any, stimulus: Any, phases: Any, load: Any, networks: dict[str, Path]) -> None:
        copies = {dtype: Path(shutil.copytree(path, tmp_path / f"network-{dtype}")) for dtype, path in networks.items()}
        recorded = {phase.name: save.record_phase(phase, load, stimulus) for phase in phases}
        monkeypatch.setattr(save, "record_phase", lambda phase, *_: recorded[phase.name])
        kept.update(report=report, stimulus=stimulus, phases=phases, load=load, networks=copies)

    monkeypatch.setattr(diff, "save_bundle", keep)
    diff_layers(tiny_llama, workspace=llama_workspace, settings=DiffSettings(tokens=32, save=tmp_path / "never"))
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_save(bundle_parts: dict[str, Any], sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str) -> None:
    output = sandbox / "bundle"
    between = behave(file_system, output, monkeypatch)

    def save_as(summary: str) -> None:
        report = replace(bundle_parts["report"], summary=summary)
        save.save_bundle(output, **bundle_parts | {"report": report})

    def check() -> str:
        read_manifest(output)
        return str(json.loads((output / "report.json").read_text())["summary"])

    save_as("old")
    kill_everywhere(Case(run=lambda: save_as("new"), state=lambda: complete(check), between=between), sandbox)
