"""The command on a real, tiny model: the verdict of a right port and of one that was edited by hand."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

import trtllm_port.verification.prove as proving
from trtllm_port.cli.app import main
from trtllm_port.verification.prove.catalogue import CATALOGUE

QUICK = ["--backend", "reference", "--tokens", "40", "--max-output-len", "3", "--json"]


@pytest.fixture
def workspace(llama_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace that a test may edit."""
    shutil.copytree(llama_workspace / "models", tmp_path / "models")
    return tmp_path


def test_a_right_port(tiny_llama: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_dir = workspace / "report"
    words = ["verify", str(tiny_llama), "--workspace", str(workspace), "--report-dir", str(report_dir), *QUICK]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == "pass"
    assert printed == json.loads((report_dir / "report.json").read_text())


def test_a_port_edited_by_hand(tiny_llama: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = next(workspace.glob("models/*/model.py"))
    source = model.read_text()
    edited = source.replace("config.rms_norm_eps)", "1e-3)", 1)
    assert edited != source
    model.write_text(edited)
    assert main(["verify", str(tiny_llama), "--workspace", str(workspace), *QUICK]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["first_divergence"] == "model.layers.0.input_layernorm"
    assert printed["causes"][0]["cause"] == "wrong epsilon"


def test_an_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    assert main(["diff-layers", str(tmp_path), "--workspace", str(tmp_path), "--json"]) == 2
    assert "hint" in capsys.readouterr().err


def test_a_tensor_in_the_wrong_place_blames_the_place_alone(
    tiny_llama: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = next(workspace.glob("models/*/model.py"))
    source = model.read_text().replace("    silu,\n", "    Activation,\n")
    made = "config.hidden_size, bias=False)\n\n    def forward(self, x: Tensor)"
    assert source.count(made) == 1
    source = source.replace(made, made.replace("\n\n", '\n        self.act_fn = Activation("silu")\n\n'))
    model.write_text(
        source.replace("silu(self.gate_proj(x)) * self.up_proj", "self.act_fn(self.up_proj(x)) * self.gate_proj")
    )
    assert main(["diff-layers", str(tiny_llama), "--workspace", str(workspace), "--tokens", "40", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["causes"][0]["cause"] == "gate and up are swapped"
    assert {found["module"].rpartition(".")[2] for found in printed["divergences"]} == {"mlp"}
    line = printed["excerpts"][0]
    assert line["lines"][line["marked"][0] - line["first_line"]].strip().startswith("return self.down_proj(self.act_fn")


def test_the_check_itself_is_proven(
    tiny_llama: Path, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [bug for bug in CATALOGUE if bug.id in ("mask.future", "logits.soft_cap")]
    monkeypatch.setattr(proving, "prove", partial(proving.prove, catalogue=chosen))
    words = ["verify", str(tiny_llama), "--workspace", str(workspace), "--prove", "--tokens", "60"]
    assert main([*words, "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 of 1 bugs caught, 1 at the right module, 1 with the right cause first\n")
    assert "1 bugs of the catalogue fit nothing in this port" in printed
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {outcome["bug"]: outcome["status"] for outcome in found["outcomes"]} == {
        "logits.soft_cap": "no place",
        "mask.future": "caught",
    }
