"""The whole way of a porter's first minutes: look, port, run the port's own test, convert."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trtllm_port.cli.app import main
from trtllm_port.registry.ports import find_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("porter")
    assert main(["new", str(tiny_llama), "--workspace", str(directory)]) == 0
    return directory


def test_new_writes_a_checked_port(workspace: Path) -> None:
    manifest = json.loads((workspace / "models" / "llama" / "port.json").read_text())
    assert manifest["check"]["passed"] is True
    assert manifest["skeletons"] == []
    assert len((workspace / "models" / "llama" / "model.py").read_text().splitlines()) < 150
    assert find_port(workspace, "LlamaForCausalLM").name == "llama"


def test_writing_it_again_gives_the_same_bytes(workspace: Path, tiny_llama: Path) -> None:
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    assert main(["new", str(tiny_llama), "--workspace", str(workspace), "--force"]) == 0
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


def test_what_it_was_traced_from_is_on_record(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "models", tmp_path / "models")
    words = ["models", "--check", "--workspace", str(tmp_path), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["ports"][0]["check"]["state"] == "current"
    path = tmp_path / "models" / "llama" / "port.json"
    manifest = json.loads(path.read_text())
    assert "attention_bias" in manifest["traced"]["changes"]
    path.write_text(json.dumps(manifest | {"transformers": "5.1.0"}))
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["ports"][0]["check"]["state"] == "unchanged"
    record = path.with_name("operations.txt")
    record.write_text(record.read_text().replace("Activation(silu)", "Activation(gelu)"))
    assert main(words) == 1
    check = json.loads(capsys.readouterr().out)["ports"][0]["check"]
    assert check["state"] == "changed"
    assert "+    act_fn = self.act_fn(gate_proj): Activation(silu)" in check["diff"]


def test_what_is_written_passes_the_linter(workspace: Path) -> None:
    pytest.importorskip("ruff")
    project = Path(__file__).parents[2] / "pyproject.toml"
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", str(project), "."]
        done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_ports_own_test_passes(workspace: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "float32", "tests"]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_legacy_script_converts(workspace: Path, tiny_llama: Path, tmp_path: Path) -> None:
    script = workspace / "examples" / "llama" / "convert_checkpoint.py"
    words = ["--model_dir", tiny_llama, "--output_dir", tmp_path / "ckpt", "--dtype", "float16", "--tp_size", "1"]
    subprocess.run([sys.executable, script, *words], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "ckpt" / "config.json").read_text())["dtype"] == "float16"


def test_inspect_names_what_it_finds(
    workspace: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"no_such_key": 7}))
    shutil.copy(tiny_llama / "model.safetensors", tmp_path)
    assert main(["inspect", str(tmp_path), "--workspace", str(workspace), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["sizes"]["num_key_value_heads"] == 2
    assert found["port"]["name"] == "llama"
    assert found["tensors"]["dtypes"] == {"float32": found["tensors"]["tensors"]}
    states = {row["key"]: row["state"] for row in found["ledger"]}
    assert states["hidden_size"] == "used"
    assert states["attention_dropout"] == "ignored"
    assert states["no_such_key"] == "unknown"


def test_the_next_architecture_is_what_differs(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace, tmp_path / "work")
    names = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    (tmp_path / "config.json").write_text(json.dumps(names | {"vocab_size": 200, "num_hidden_layers": 2}))
    words = ["new", str(tmp_path), "--workspace", str(tmp_path / "work"), "--like"]
    assert main([*words, "lama"]) == 2
    assert "has no port `lama`: it has `llama`" in capsys.readouterr().err
    assert main([*words, "llama", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["like"] == "llama"
    assert result["check"]["passed"] is True
    models = tmp_path / "work" / "models"
    lines = {name: len((models / name / "model.py").read_text().splitlines()) for name in ("llama", "qwen2")}
    assert lines["qwen2"] < 0.65 * lines["llama"]
    model = [str(tmp_path), "--random-weights", "--workspace", str(tmp_path / "work")]
    assert main(["diff-layers", *model]) == 0
    capsys.readouterr()
    assert main(["verify", *model, "--prove"]) == 2
    assert "port `qwen2` takes classes from port `llama`" in capsys.readouterr().err
