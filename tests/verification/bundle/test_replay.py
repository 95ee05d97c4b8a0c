"""A bundle gives the same verdict without Hugging Face, catches a port that changed, and is not believed if altered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trtllm_port.building import build_engine
from trtllm_port.cli.app import main
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.errors import BundleError
from trtllm_port.verification import DiffSettings, Report, Verdict, diff_layers, is_bundle, replay
from trtllm_port.verification.bundle import save
from trtllm_port.verification.bundle.files import BUNDLE_JSON, _digest, read_manifest
from trtllm_port.verification.bundle.record import _layouts
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.taps.names import ModuleFacts

Edit = Callable[[str, str], None]
SHORT = DiffSettings(tokens=96)
BUGS = {
    "gate_up": ("silu(self.gate_proj(x)) * self.up_proj(x)", "silu(self.up_proj(x)) * self.gate_proj(x)"),
    "epsilon": (
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)",
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, 1e-6)",
    ),
    "rotary": ("        key_states = rotary_embedding(key_states, cos, sin)\n", ""),
}


@pytest.fixture
def saved(model_dir: Path, workspace: Path, tmp_path: Path) -> Callable[..., tuple[Report, Path]]:
    """Compares the port as it is, and saves a bundle."""

    def compare(dtype: str = "float16") -> tuple[Report, Path]:
        bundle = tmp_path / "bundle"
        settings = replace(SHORT, save=bundle)
        return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=settings), bundle

    return compare


@pytest.fixture(scope="module")
def clean_bundle(model_dir: Path, llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a right port, for all tests to read."""
    bundle = tmp_path_factory.mktemp("saved") / "bundle"
    diff_layers(model_dir, workspace=llama_workspace, dtype="float16", settings=replace(SHORT, save=bundle))
    return bundle


@pytest.fixture
def bundle(clean_bundle: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may harm."""
    return Path(shutil.copytree(clean_bundle, tmp_path / "bundle"))


@pytest.fixture
def engine(model_dir: Path, workspace: Path, tmp_path: Path) -> Callable[[], Path]:
    """Builds the port as it is."""

    def build() -> Path:
        checkpoint, output = tmp_path / "checkpoint", tmp_path / "engine"
        convert_checkpoint(model_dir, checkpoint, workspace=workspace, dtype="float16")
        build_engine(checkpoint, output, workspace=workspace, backend="reference", max_batch_size=4)
        return output

    return build


def ratios(report: Report) -> dict[str, float]:
    return {tap.name: (tap.metrics or {}).get("ratio") or 0.0 for tap in report.taps}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_replay_gives_the_same_verdict(
    saved: Callable[..., tuple[Report, Path]], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    report, bundle = saved(dtype)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("Hugging Face was asked for")

    monkeypatch.setattr(HuggingFaceRunner, "load", refuse)
    again = replay(bundle)
    assert (again.verdict, again.exit_code) == (report.verdict, 0)
    then, now = ratios(report), ratios(again)
    assert set(now) == set(then)
    assert all(now[tap] == pytest.approx(then[tap], rel=0.3, abs=0.05) for tap in now)
    logits = {gate.name: gate.value for gate in report.gates if gate.name in ("prefill.error", "decode.kl", "batch.kl")}
    assert {gate.name: gate.value for gate in again.gates if gate.name in logits} == pytest.approx(logits, rel=0.05)


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_port_is_found_at_the_same_module(
    saved: Callable[..., tuple[Report, Path]], edit: Edit, bug: str
) -> None:
    edit(*BUGS[bug])
    report, bundle = saved()
    again = replay(bundle)
    assert (again.verdict, again.first_divergence) == (Verdict.FAIL, report.first_divergence)


@pytest.mark.parametrize("bug", [None, "gate_up", "rotary"])
def test_a_port_that_changed_afterwards_is_caught(
    bundle: Path, engine: Callable[[], Path], edit: Edit, bug: str | None
) -> None:
    if bug is None:
        assert replay(bundle, engine_dir=engine()).verdict is Verdict.PASS
        return
    edit(*BUGS[bug])
    assert replay(bundle, engine_dir=engine()).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("slots", "gate", "module"),
    [
        ("position_ids - 1", "port.runs", "model.layers.0.self_attn"),
        ("position_ids - position_ids[:, 0:1] // 47 * 48", "decode.runs", None),
    ],
    ids=["at once", "in a decode step"],
)
def test_a_port_that_cannot_be_run_fails(
    bundle: Path, engine: Callable[[], Path], edit: Edit, slots: str, gate: str, module: str | None
) -> None:
    mask = "attention_mask = causal_mask(position_ids, cache)"
    edit(mask, f"{mask}\n        cache.position_ids = {slots}")
    report = replay(bundle, engine_dir=engine())
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, module)
    assert gate in [each.name for each in report.gates if each.verdict is Verdict.FAIL]


def test_weights_that_are_too_large_stay_where_they_are(
    saved: Callable[..., tuple[Report, Path]], engine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "WEIGHTS_LIMIT", 1000)
    _, bundle = saved()
    assert not list(bundle.glob("network-*/*.safetensors"))
    with pytest.raises(BundleError, match="no weights"):
        replay(bundle)
    again = replay(bundle, engine_dir=engine())
    assert again.verdict is Verdict.PASS
    assert "the logic phase" in {item.what for item in again.not_exercised}


def forged(bundle: Path, **changes: Any) -> None:
    """Change the manifest and let it state the right digest."""
    content = json.loads((bundle / BUNDLE_JSON).read_text()) | changes
    del content["digest"]
    (bundle / BUNDLE_JSON).write_text(json.dumps(content | {"digest": _digest(content)}))


def unlisted(bundle: Path, name: str) -> None:
    files = json.loads((bundle / BUNDLE_JSON).read_text())["files"]
    forged(bundle, files={listed: facts for listed, facts in files.items() if listed != name})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda bundle: flip(bundle / "logic.safetensors"), "was altered"),
        (lambda bundle: flip(bundle / "network-float16" / "rank0.safetensors"), "was altered"),
        (lambda bundle: (bundle / "network-float16" / "rank0.network.json").unlink(), "is missing"),
        (lambda bundle: (bundle / "precision.safetensors").write_bytes(b""), "0 bytes"),
        (lambda bundle: (bundle / BUNDLE_JSON).write_text("{"), "cannot be read"),
        (lambda bundle: (bundle / BUNDLE_JSON).write_text("{}"), "not a bundle"),
        (lambda bundle: forged(bundle, version=2), "version 2"),
        (lambda bundle: forged(bundle, files={"../../secret.json": {}}), "which no bundle has"),
        (lambda bundle: forged(bundle, files={"/etc/passwd.json": {}}), "which no bundle has"),
        (lambda bundle: forged(bundle, files={"weights.pkl": {}}), "which no bundle has"),
        (lambda bundle: forged(bundle, files={}), "does not list `logic.safetensors`"),
        (lambda bundle: unlisted(bundle, "precision.safetensors"), "does not list `precision.safetensors`"),
        (lambda bundle: unlisted(bundle, "network-float16/config.json"), "does not list `network-float16/config.json`"),
        (lambda bundle: forged(bundle, phases=[{"phase": {"name": "../logic"}}]), "not what this release writes"),
        (lambda bundle: forged(bundle, stimulus={}), "not what this release writes"),
        (lambda bundle: forged(bundle, subject={"model": "x"}), "not what this release writes"),
    ],
)
def test_an_altered_bundle_is_refused(bundle: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(bundle)
    with pytest.raises(BundleError, match=said):
        replay(bundle)


def test_a_statement_in_the_manifest_cannot_be_changed_unnoticed(bundle: Path) -> None:
    content = json.loads((bundle / BUNDLE_JSON).read_text())
    content["subject"]["port"] = "another"
    (bundle / BUNDLE_JSON).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="was altered"):
        replay(bundle)


def test_a_report_does_not_go_into_the_bundle(bundle: Path) -> None:
    before = read_manifest(bundle)
    for report_dir in (bundle, bundle / "report"):
        with pytest.raises(BundleError, match="lies in the bundle"):
            replay(bundle, report_dir=report_dir)
    assert read_manifest(bundle) == before


def test_a_link_that_leads_out_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "report.json").rename(tmp_path / "outside.json")
    (bundle / "report.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(BundleError, match="lies outside"):
        replay(bundle)


def test_choices_of_experts_are_no_values() -> None:
    facts = {"gate": ModuleFacts(class_name="Router", holds_parameters=True)}
    assert _layouts("gate:2", torch.tensor([[3, 1], [0, 2]]), facts) == ()
    assert len(_layouts("gate", torch.ones(2, 4), facts)) == 1


def test_what_is_no_bundle_is_not_replaced(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BundleError, match="is no bundle"):
        diff_layers(model_dir, workspace=workspace, settings=replace(SHORT, save=tmp_path / "mine"))
    assert not is_bundle(tmp_path / "mine")


def test_the_command_replays_without_transformers(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from trtllm_port.cli.app import main\n"
        f"sys.exit(main(['diff-layers', {str(bundle)!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"
    assert main(["diff-layers", str(bundle), "--dtype", "float32"]) == 2
    assert "leave out `--dtype`" in capsys.readouterr().err
