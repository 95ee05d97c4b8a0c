"""`verify --repair`: finds the modules that must stay unquantized, verifies the model that is left, and says so."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors.torch import load_file, save_file

from tests.quantized_models import quantize
from trtllm_port.cli.app import main

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report-schema.json").read_text())
QUICK = ["--backend", "reference", "--tokens", "40", "--max-output-len", "3", "--dtype", "float16"]
HARD = "model.layers.1.mlp.down_proj"
INT8 = ("--quant-algo", "W8A16")
Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def hard(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model with outliers in one weight: they meet a feature that is always zero, and coarsen all codes of a row."""
    shutil.copytree(tiny_llama, tmp_path / "hard")
    file = tmp_path / "hard" / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{HARD}.weight"][:, 0] = 1000.0
    tensors["model.layers.1.mlp.up_proj.weight"][0] = 0.0
    save_file(tensors, file, {"format": "pt"})
    return tmp_path / "hard"


@pytest.fixture
def verify(llama_workspace: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Runs the command, gives its exit code and what it printed as JSON."""

    def run(model: Path, *words: str) -> tuple[int, dict[str, Any]]:
        code = main(["verify", str(model), "--workspace", str(llama_workspace), *QUICK, *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_the_module_that_is_hard_to_quantize_is_found(hard: Path, verify: Verify, tmp_path: Path) -> None:
    code, report = verify(hard, *INT8, "--repair", "kl<0.5", "--report-dir", str(tmp_path / "report"))
    assert code == 0
    jsonschema.validate(report, SCHEMA)
    repair = report["repair"]
    assert repair["modules"] == [HARD]
    assert repair["candidates"] == 14
    assert repair["curve"][0]["modules"] == 0
    assert repair["curve"][0]["kl"] > 0.5 > repair["chosen"]["kl"]
    assert [stage["name"] for stage in report["stages"]][:2] == ["repair", "convert"]
    assert repair == json.loads((tmp_path / "report" / "repair.json").read_text())
    # What follows is about the repaired model, on the same text.
    for measure, value in (("kl", "mean"), ("top1", "value")):
        assert report["loss"][measure][value] == repair["chosen"][measure]
    assert report["loss"]["perplexity"]["ratio"]["value"] == repair["chosen"]["perplexity"]
    assert HARD not in {part["name"] for part in report["loss"]["shares"]["parts"]}
    assert {gate["name"]: gate["verdict"] for gate in report["gates"]}["loss.repair"] == "pass"
    assert repair["command"] in report["commands"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "1 of 14 modules stay unquantized" in page
    assert "Size against loss: mean KL" in page


def test_the_command_converts_the_repaired_model(hard: Path, verify: Verify, tmp_path: Path) -> None:
    _, report = verify(hard, *INT8, "--repair", "top1>0.7", "--exclude-modules", "*.q_proj")
    repair = report["repair"]
    assert HARD in repair["modules"]
    assert repair["candidates"] == 12
    words = shlex.split(repair["command"].replace("CKPT", str(tmp_path / "ck")))[1:]
    assert main(words) == 0
    content = json.loads((tmp_path / "ck" / "config.json").read_text())
    quantized = {name.removesuffix(".weight") for name in content["quantization"]["parameters"]}
    assert len(quantized) == repair["candidates"] - len(repair["modules"])
    assert not quantized & set(repair["modules"])
    assert not any(name.endswith("q_proj") for name in quantized)
    stored = load_file(tmp_path / "ck" / "rank0.safetensors")
    projections = {name: tensor for name, tensor in stored.items() if "_proj." in name and "q_proj" not in name}
    assert sum(tensor.nbytes for tensor in projections.values()) == repair["chosen"]["bytes"]


def test_a_bound_that_is_met_leaves_nothing_out(
    tiny_llama: Path, verify: Verify, capsys: Any, llama_workspace: Path
) -> None:
    code, report = verify(tiny_llama, *INT8, "--repair", "kl<5")
    assert code == 0
    repair = report["repair"]
    assert (repair["modules"], repair["returned"], repair["measured"]) == ([], [], 1)
    assert repair["curve"] == [repair["chosen"]]
    assert report["stages"][0]["detail"].startswith("kl<5 is met with all 14 modules quantized: kl is 0.")
    words = ["verify", str(tiny_llama), "--workspace", str(llama_workspace), *QUICK, *INT8, "--repair", "kl<5"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "repair for kl<5: met with all 14 modules quantized" in printed
    assert "convert so: trtllm-port convert --model-dir" in printed


def test_what_leaves_nothing_to_quantize_is_refused(tiny_llama: Path, verify: Verify) -> None:
    code, printed = verify(tiny_llama, *INT8, "--repair", "kl<1e-12")
    assert code == 2
    assert "`kl<1e-12` is met with no module quantized alone" in printed["error"]["message"]


def test_what_memory_does_not_hold_twice_is_refused(
    tiny_llama: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtllm_port.verification.quantization_loss.MEMORY", 0.0)
    code, printed = verify(tiny_llama, *INT8, "--repair", "kl<0.1")
    assert code == 2
    assert "needs memory for the model twice" in printed["error"]["message"]


def test_what_has_no_meaning_is_refused(
    tiny_llama: Path, verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is quantized."""
    monkeypatch.delattr("trtllm_port.verification.pipeline.opened_model")
    quantized = tmp_path / "quantized"
    quantize(tiny_llama, quantized, "gptq")
    bound = ("--repair", "kl<0.01")
    already = "it is quantized already (gptq)"
    refused: list[tuple[Path, tuple[str, ...], str]] = [
        (tiny_llama, bound, "`--repair` is of a quantization, and none is asked for"),
        (tiny_llama, (*INT8, *bound, "--random-weights"), "cannot judge random weights"),
        (tiny_llama, (*INT8, *bound, "--prove"), "`--prove` proves the check of the port"),
        (tiny_llama, (*INT8, "--repair", "top1>1"), "`top1>1` cannot be met"),
        (tiny_llama, (*INT8, *bound, "--original", str(tiny_llama)), "the model is the original itself"),
        (quantized, bound, already),
        (quantized, (*bound, *INT8), already),
        (quantized, (*bound, "--original", str(tiny_llama)), already),
    ]
    for model, words, message in refused:
        code, printed = verify(model, *words)
        assert code == 2
        assert message in printed["error"]["message"]
        assert printed["error"]["hint"]
