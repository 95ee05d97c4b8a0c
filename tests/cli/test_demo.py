"""`demo`: the whole way on the shipped model, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from trtllm_port.cli.app import main
from trtllm_port.cli.commands.demo import render
from trtllm_port.codegen import SelfCheck
from trtllm_port.demo.tour import DemoResult

Capture = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_the_demo_proves_a_port_and_says_where_it_is(tmp_path: Path, capsys: Capture) -> None:
    workspace = tmp_path / "demo"
    assert main(["demo", "--workspace", str(workspace)]) == 0
    told = capsys.readouterr()
    assert "$ trtllm-port new" in told.err
    assert "$ trtllm-port verify" in told.err
    for stage in ("convert", "build", "prompt", "rouge", "diff-layers"):
        assert stage in told.out
    assert f"report:  {workspace / 'report' / 'report.html'}" in told.out
    assert "verdict: pass" in told.out
    assert "do not pass" not in told.out
    assert " warn" not in told.out
    assert (workspace / "models" / "llama" / "model.py").is_file()
    report = json.loads((workspace / "report" / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["executor"]


@pytest.mark.parametrize(("first", "verdict"), [("prefill: model.norm", "fail"), (None, "cannot_tell")])
def test_a_port_that_could_not_be_checked_is_not_called_wrong(first: str | None, verdict: str, capsys: Capture) -> None:
    check = SelfCheck(passed=False, first_divergence=first, problem=None if first else "values are not finite")
    new = SimpleNamespace(check=check, port=SimpleNamespace(package_dir=Path("models/llama")))
    result = DemoResult(workspace=Path(), new=new, report=None, seconds=1.0)  # type: ignore[arg-type]
    render(result)
    said = capsys.readouterr().out
    assert result.verdict == verdict
    assert result.exit_code == 1
    assert ("could not be checked" in said) is (first is None)
    assert said.startswith(verdict.replace("_", " ").upper())


def test_a_workspace_that_has_a_port_already_is_refused(llama_workspace: Path, capsys: Capture) -> None:
    assert main(["demo", "--workspace", str(llama_workspace), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "WorkspaceError"
