"""`demo`: the whole way on the shipped model, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtllm_port.cli.app import main

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
    assert (workspace / "models" / "llama" / "model.py").is_file()
    report = json.loads((workspace / "report" / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["executor"]


def test_a_workspace_that_has_a_port_already_is_refused(llama_workspace: Path, capsys: Capture) -> None:
    assert main(["demo", "--workspace", str(llama_workspace), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "WorkspaceError"
