"""A few bugs in a hand-written port: caught, placed, explained; or said not to show; and never silently passed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trtllm_port.errors import PortError
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.prove import Outcome, Proof, harness, prove
from trtllm_port.verification.prove.bugs import Bug, Injection, SoundPort
from trtllm_port.verification.prove.catalogue import CATALOGUE
from trtllm_port.verification.prove.harness import ProofSetup
from trtllm_port.verification.stimulus.settings import DiffSettings

SETTINGS = DiffSettings(tokens=96)


def chosen(*names: str) -> list[Bug]:
    return [bug for bug in CATALOGUE if bug.id in names]


def proof_of(model_dir: Path, workspace: Path, bugs: list[Bug], report_dir: Path | None = None) -> Proof:
    return prove(
        model_dir, workspace=workspace, dtype="float32", settings=SETTINGS, catalogue=bugs, report_dir=report_dir
    )


def test_bugs_are_caught_placed_and_explained(model_dir: Path, workspace: Path) -> None:
    names = ("attention.scale", "weights.transposed", "norm.left_out", "positions.restart", "logits.soft_cap")
    before = {path: path.read_bytes() for path in workspace.rglob("*.py")}
    proof = proof_of(model_dir, workspace, chosen(*names))
    assert proof.exit_code == 0
    assert proof.summary == "4 of 4 bugs caught, 4 at the right module, 4 with the right cause first"
    found = {outcome.bug: outcome for outcome in proof.outcomes}
    assert found["attention.scale"].module == "model.layers.0.self_attn"
    assert found["weights.transposed"].module == "model.layers.1.self_attn.q_proj"
    assert found["positions.restart"].gate == "decode.error"
    assert found["logits.soft_cap"].status == "no place"
    assert {path: path.read_bytes() for path in workspace.rglob("*.py")} == before


def test_a_bug_that_changes_nothing_is_not_counted(model_dir: Path, workspace: Path) -> None:
    def inject(port: SoundPort) -> Injection:
        return Injection(change="a comment", modules=(), source=port.source + "\n# nothing\n")

    bug = Bug(id="nothing", kind="source", description="nothing", causes=("activation",), inject=inject)
    (outcome,) = proof_of(model_dir, workspace, [bug]).outcomes
    assert outcome.status == "not exercised"
    assert "0 times Hugging Face's own error" in outcome.reason


def test_a_blind_checker_is_found_out(model_dir: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "verdict_of", lambda _gates: Verdict.PASS)
    proof = proof_of(model_dir, workspace, chosen("attention.scale.squared"))
    assert proof.outcomes[0].status == "missed"
    assert proof.exit_code == 1


def test_a_wrong_answer_is_counted_as_wrong(model_dir: Path, workspace: Path) -> None:
    (bug,) = chosen("weights.scaled")
    (outcome,) = proof_of(model_dir, workspace, [replace(bug, causes=("activation",))]).outcomes
    assert outcome.placed
    assert not outcome.explained


def test_a_port_that_is_not_sound_is_refused(model_dir: Path, workspace: Path) -> None:
    source = workspace / "models" / "llama" / "model.py"
    source.write_text(source.read_text().replace("config.rms_norm_eps)", "1e-2)", 1))
    with pytest.raises(PortError, match="does not pass by itself"):
        proof_of(model_dir, workspace, chosen("attention.scale"))


def test_an_interrupted_run_goes_on(
    model_dir: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs = chosen("weights.transposed", "weights.gate_up")
    try_bug, tried = harness.try_bug, []

    def interrupted(setup: ProofSetup, bug: Bug) -> Outcome:
        tried.append(bug.id)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return try_bug(setup, bug)

    monkeypatch.setattr(harness, "try_bug", interrupted)
    with pytest.raises(KeyboardInterrupt):
        proof_of(model_dir, workspace, bugs, tmp_path / "report")
    proof = proof_of(model_dir, workspace, bugs, tmp_path / "report")
    assert tried == ["weights.transposed", "weights.gate_up", "weights.gate_up"]
    assert [outcome.status for outcome in proof.outcomes] == ["caught", "caught"]
    assert json.loads((tmp_path / "report" / "prove.json").read_text()) == json.loads(json.dumps(proof.to_dict()))
