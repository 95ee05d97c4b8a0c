from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtllm_port.cli.app import main


def test_ports_and_their_state_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workspace", str(tmp_path)]
    assert main(["models", *words]) == 0
    assert capsys.readouterr().out == ""
    for name in ("one", "two"):
        assert main(["new", "--blank", name, *words]) == 0
    (tmp_path / "models" / "two" / "model.py").write_text("# edited\nclass TwoForCausalLM:\n    pass\n")
    capsys.readouterr()
    assert main(["models", *words]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "ForCausalLM" in line]
    assert [row[:4] for row in rows] == [
        ["OneForCausalLM", "one", "as", "generated"],
        ["TwoForCausalLM", "two", "edited:", "model.py"],
    ]
    assert main(["models", *words, "--json"]) == 0
    ports = json.loads(capsys.readouterr().out)["ports"]
    assert [port["edited"] for port in ports] == [[], ["model.py"]]


def test_a_broken_workspace_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "trtllm-port.toml").touch()
    (tmp_path / "models" / "__init__.py").write_text("import no_such_thing\n")
    assert main(["models", "--workspace", str(tmp_path)]) == 2
    assert "__init__.py, line 1: ModuleNotFoundError" in capsys.readouterr().err
