from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtllm_port.cli.app import main
from trtllm_port.porting.staleness import Staleness
from trtllm_port.registry.ports import PortEntry


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


def check_of(state: str, *, stale: bool, diff: str = "", tmp_path: Path) -> Staleness:
    port = PortEntry(
        name="llama",
        architecture="LlamaForCausalLM",
        cls=object,
        package_dir=tmp_path,
        packages=(tmp_path,),
        digest="xxh3_128:0",
        origin="workspace",
    )
    return Staleness(port=port, state=state, because=("transformers 5.20.2 → 5.24.0",), diff=diff, stale=stale)


@pytest.mark.parametrize(
    ("state", "stale", "code", "told"),
    [
        ("current", False, 0, "current"),
        ("unchanged", True, 0, "stale, computes the same"),
        ("changed", True, 1, "stale, computes something else"),
        ("unknown", True, 1, "cannot tell"),
        ("unknown", False, 0, "cannot tell"),
    ],
)
def test_stale_ports_are_told(
    state: str,
    stale: bool,
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    diff = "-    mul = a * b\n+    mul = a * c" if state == "changed" else ""
    found = check_of(state, stale=stale, diff=diff, tmp_path=tmp_path)
    monkeypatch.setattr("trtllm_port.porting.staleness.check_ports", lambda workspace, **_: [found])
    words = ["models", "--check", "--workspace", str(tmp_path)]
    assert main(words) == code
    out = capsys.readouterr().out
    assert told in out
    assert ("+    mul = a * c" in out) == (state == "changed")
    assert main([*words, "--json"]) == code
    (port,) = json.loads(capsys.readouterr().out)["ports"]
    assert port["name"] == "llama"
    assert port["check"] == {
        "state": state,
        "stale": stale,
        "because": ["transformers 5.20.2 → 5.24.0"],
        "diff": diff.splitlines(),
    }


def test_a_workspace_without_ports_has_none_that_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--check", "--workspace", str(tmp_path)]) == 0
    assert "no port is registered" in capsys.readouterr().err
