"""`verify --original` on a quantized model: reported, judged only by `--max-kl`, refused where it has no meaning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors.torch import load_file, save_file

from tests.quantized_models import quantize
from trtllm_port.cli.app import main
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.verification.loss.measure import STREAMED
from trtllm_port.verification.quantization_loss import NOT_MEASURED

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report-schema.json").read_text())
QUICK = ["--backend", "reference", "--tokens", "40", "--max-output-len", "3", "--dtype", "float32"]
Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def quantized(tiny_llama: Path, tmp_path: Path) -> Path:
    quantize(tiny_llama, tmp_path / "quantized", "gptq")
    return tmp_path / "quantized"


@pytest.fixture
def verify(llama_workspace: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Runs the command, gives its exit code and what it printed as JSON."""

    def run(model: Path, *words: str) -> tuple[int, dict[str, Any]]:
        code = main(["verify", str(model), "--workspace", str(llama_workspace), *QUICK, *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_loss_is_reported_and_decides_nothing(
    tiny_llama: Path, quantized: Path, verify: Verify, tmp_path: Path
) -> None:
    code, report = verify(quantized, "--original", str(tiny_llama), "--report-dir", str(tmp_path / "report"))
    assert code == 0
    jsonschema.validate(report, SCHEMA)
    loss = report["loss"]
    assert loss["kl"]["mean"] > 0.001
    assert loss["text"].startswith("seeded random token ids (seed 0), which are no text")
    assert (loss["windows"], loss["window"]) == (32, 128)
    assert len(loss["weights"]) == len(loss["shares"]["parts"]) == 14
    assert loss == json.loads((tmp_path / "report" / "loss.json").read_text())
    assert [stage["name"] for stage in report["stages"]][-2:] == ["loss", "diff-layers"]
    assert not [gate for gate in report["gates"] if gate["phase"] == "loss"]
    assert NOT_MEASURED.what not in {item["what"] for item in report["not_exercised"]}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "What quantization cost: " in page
    assert "each module quantized alone" in page
    assert "and 4 more, in <code>report.json</code>" in page


def test_without_an_original_it_is_not_exercised(tiny_llama: Path, quantized: Path, verify: Verify) -> None:
    code, report = verify(quantized)
    assert code == 0
    assert report["loss"] is None
    assert {"what": NOT_MEASURED.what, "reason": NOT_MEASURED.reason} in report["not_exercised"]
    assert "`--original DIR`" in NOT_MEASURED.reason
    _, plain = verify(tiny_llama)
    assert NOT_MEASURED.what not in {item["what"] for item in plain["not_exercised"]}


def test_a_limit_makes_it_a_gate(
    tiny_llama: Path, quantized: Path, verify: Verify, capsys: pytest.CaptureFixture[str], llama_workspace: Path
) -> None:
    code, report = verify(quantized, "--original", str(tiny_llama), "--max-kl", "1e-6")
    assert (code, report["verdict"]) == (1, "fail")
    assert [gate["name"] for gate in report["gates"] if gate["verdict"] == "fail"] == ["loss.kl"]
    assert report["summary"].startswith("no gate of the port fails, but quantization costs a mean KL divergence of ")
    assert report["first_divergence"] is None
    assert f"`{report['loss']['shares']['parts'][0]['name']}`" in report["next_steps"][0]
    assert "--max-kl 1e-06" in report["next_steps"][1]
    assert verify(quantized, "--original", str(tiny_llama), "--max-kl", "100")[0] == 0
    words = ["verify", str(quantized), "--workspace", str(llama_workspace), *QUICK, "--original", str(tiny_llama)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "quantization cost, on 32 windows of 128 tokens (seeded random token ids" in printed
    assert "… and 4 more" in printed


def test_a_port_that_cannot_be_run_has_no_loss(
    tiny_llama: Path, quantized: Path, workspace: Path, edit: Callable[[str, str], None], capsys: Any
) -> None:
    edit("config.intermediate_size, config.hidden_size, bias=False", "config.intermediate_size, config.hidden_size")
    words = ["verify", str(quantized), "--workspace", str(workspace), *QUICK, "--original", str(tiny_llama), "--json"]
    assert main(words) == 1
    stages = {stage["name"]: stage["verdict"] for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert (stages["convert"], stages["loss"], stages["diff-layers"]) == ("fail", "skipped", "skipped")


def test_what_memory_does_not_hold_twice_is_read_layer_by_layer(
    tiny_llama: Path, quantized: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, whole = verify(quantized, "--original", str(tiny_llama))
    monkeypatch.setattr("trtllm_port.verification.quantization_loss.MEMORY", 0.0)
    code, report = verify(quantized, "--original", str(tiny_llama), "--max-kl", "1e-6")
    assert code == 1
    assert report["loss"]["kl"]["mean"] == pytest.approx(whole["loss"]["kl"]["mean"], rel=1e-4)
    assert report["loss"]["shares"] is None
    assert report["loss"]["notes"] == [STREAMED]
    assert report["next_steps"][0].startswith("Keep some weights unquantized, ")


@pytest.mark.slow
def test_a_model_with_a_tokenizer_writes_summaries_too(llama_workspace: Path, tmp_path: Path, capsys: Any) -> None:
    quantize(MODEL_DIR, tmp_path / "quantized", "awq")
    words = ["verify", str(tmp_path / "quantized"), "--workspace", str(llama_workspace), "--backend", "reference"]
    words += ["--original", str(MODEL_DIR), "--num-samples", "2", "--report-dir", str(tmp_path / "report")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "quantized to original, both by Hugging Face: rouge1 " in printed
    assert "a passage and made-up news articles" in printed
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["rouge"]["rouge"]["rouge1"]["original"] > 90
    assert 0.01 < report["loss"]["kl"]["mean"] < 0.1
    assert '<th scope="col" class="n">original</th>' in (tmp_path / "report" / "report.html").read_text()


def changed(model: Path, output: Path, **config: Any) -> Path:
    shutil.copytree(model, output)
    path = output / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return output


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 60}, "the original has a vocabulary of 60 tokens, the quantized model one of 61"),
        ({"intermediate_size": 40}, "has [40, 32], in the quantized model [48, 32]"),
        ({"num_hidden_layers": 3}, "9 parameters of the original have other shapes"),
        ({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, "the original is a MistralForCausalLM, "),
    ],
)
def test_another_model_is_refused(
    tiny_llama: Path, quantized: Path, verify: Verify, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    code, printed = verify(quantized, "--original", str(changed(tiny_llama, tmp_path / "other", **config)))
    assert code == 2
    assert message in printed["error"]["message"]
    assert printed["error"]["hint"] == "`--original` takes the model that this one was quantized from"


def test_what_has_no_meaning_is_refused(
    tiny_llama: Path, quantized: Path, verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is dequantized."""
    monkeypatch.delattr("trtllm_port.verification.sides.preparation.write_dequantized")
    original = ("--original", str(tiny_llama))
    (tmp_path / "empty").mkdir()
    shutil.copy(tiny_llama / "config.json", tmp_path / "empty")
    refused: list[tuple[Path, tuple[str, ...], str]] = [
        (quantized, ("--original", str(quantized)), "is quantized, too (by gptq)"),
        (quantized, ("--original", str(tmp_path / "nowhere")), "is not a directory"),
        (quantized, ("--original", str(tmp_path / "empty")), "the original cannot be used: "),
        (tiny_llama, original, "is not quantized, so nothing was lost"),
        (quantized, (*original, "--random-weights"), "cannot be compared with random weights"),
        (quantized, (*original, "--prove"), "`--prove` proves the check of the port"),
        (quantized, ("--max-kl", "0.1"), "limits the divergence from an original, and there is none"),
        *((quantized, (*original, f"--max-kl={limit}"), "expected a number") for limit in ("-1", "nan", "inf")),
    ]
    for model, words, message in refused:
        code, printed = verify(model, *words)
        assert code == 2
        assert message in printed["error"]["message"]
        assert printed["error"]["hint"]


def test_an_original_that_lacks_weights_is_no_fault_of_the_port(
    tiny_llama: Path, quantized: Path, verify: Verify, tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "original")
    tensors = load_file(tmp_path / "original" / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "original" / "model.safetensors", {"format": "pt"})
    code, printed = verify(quantized, "--original", str(tmp_path / "original"))
    assert code == 2
    assert "the original cannot be used: " in printed["error"]["message"]
    assert "model.layers.0.mlp.up_proj.weight" in printed["error"]["message"]


def test_another_config_of_equal_shapes_is_told(
    tiny_llama: Path, quantized: Path, verify: Verify, tmp_path: Path
) -> None:
    original = changed(tiny_llama, tmp_path / "other", rms_norm_eps=0.1, torch_dtype="bfloat16")
    code, report = verify(quantized, "--original", str(original))
    assert code == 0
    assert "each model runs with its own config, and these keys differ: `rms_norm_eps`" in report["loss"]["notes"]
