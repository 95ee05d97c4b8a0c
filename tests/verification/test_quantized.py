"""A model that is published quantized is proven with its weights as they were before, on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.quantized_models import METHODS, quantize
from trtllm_port.cli.app import main


@pytest.mark.parametrize("method", METHODS)
def test_a_port_is_compared_with_dequantized_weights(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    model, kind = tmp_path / "model", {"fp8": "fp8_e4m3"}.get(method, "int4")
    quantize(tiny_llama, model, method)
    words = ["diff-layers", str(model), "--workspace", str(llama_workspace), "--dtype", "float32", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "pass"
    shown = {each["what"]: each["reason"] for each in report["not_exercised"]}
    assert shown[f"weights in {kind} ({method}, 14 of them)"].startswith("both sides have them dequantized")


def test_an_engine_of_the_quantized_model_is_one_of_it(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digests that an engine records are those of the quantized files; of another quantization it is no engine."""
    models = {method: tmp_path / method for method in ("gptq", "awq")}
    for method, model in models.items():
        quantize(tiny_llama, model, method)
    workspace = ["--workspace", str(llama_workspace)]
    checkpoint, engine = str(tmp_path / "checkpoint"), str(tmp_path / "engine")
    convert = ["convert", "--model-dir", str(models["gptq"]), "--output-dir", checkpoint, "--dequantize"]
    assert main([*convert, "--dtype", "float32", *workspace]) == 0
    build = ["build", "--checkpoint-dir", checkpoint, "--output-dir", engine, "--backend", "reference"]
    assert main([*build, "--max-seq-len", "128", *workspace]) == 0
    compare = ["diff-layers", "--engine-dir", engine, *workspace, "--tokens", "32"]
    capsys.readouterr()
    assert main([*compare, str(models["gptq"])]) == 0
    assert main([*compare, str(models["awq"])]) == 2
    assert "is an engine of another checkpoint" in capsys.readouterr().err


def test_random_weights_are_those_of_the_plain_model(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize(tiny_llama, tmp_path / "model", "awq")
    words = ["diff-layers", str(tmp_path / "model"), "--workspace", str(llama_workspace), "--random-weights", "--json"]
    assert main(words) == 0
    assert not [each for each in json.loads(capsys.readouterr().out)["not_exercised"] if "int4" in each["what"]]
