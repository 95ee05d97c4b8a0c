"""Files that people have: every one ends in a message and an exit code, none in a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.quantized_models import quantize
from trtllm_port.cli.app import main
from trtllm_port.shipped_model import MODEL_DIR

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def engine(llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of the model that ships with the package, whose tokenizer is at hand."""
    root = tmp_path_factory.mktemp("engine")
    given = ["--workspace", str(llama_workspace)]
    converted, built = str(root / "checkpoint"), str(root / "engine")
    assert main(["convert", "--model-dir", str(MODEL_DIR), "--output-dir", converted, *given]) == 0
    limits = ["--backend", "reference", "--max-seq-len", "32"]
    assert main(["build", "--checkpoint-dir", converted, "--output-dir", built, *limits, *given]) == 0
    return root / "engine"


def told(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err
    assert "Traceback" not in err
    return err


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--model-dir", "model", "--output-dir", "out"],
        ["inspect", "model"],
        ["new", "model", "--name", "mine", "--workspace", "fresh"],
        ["verify", "model", "--random-weights"],
        ["diff-layers", "model", "--random-weights"],
    ],
)
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"dtype": None, "torch_dtype": "fp16"}, "`torch_dtype` is 'fp16'"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"architectures": 5}, "`architectures` is 5"),
        ({"num_hidden_layers": 10**12}, "`num_hidden_layers` is 1000000000000"),
    ],
)
def test_configs(values: dict[str, Any], what: str, words: list[str], place: Path, capsys: Capture) -> None:
    edit(place / "model" / "config.json", **values)
    assert main(words) == 2
    assert what in told(capsys)


QUANTIZED = {"quantization_config": {"quant_method": "gptq", "bits": 4}}


def test_weights_that_are_not_quantized_as_the_config_says_are_refused(place: Path, capsys: Capture) -> None:
    edit(place / "model" / "config.json", **QUANTIZED)
    words = ["convert", "--model-dir", "model", "--output-dir", "out"]
    for more in ([], ["--dequantize"]):
        assert main([*words, *more]) == 2
        assert "no weight is quantized, though the config says that they are by gptq" in told(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["inspect", "model"], ["new", "model", "--name", "mine", "--workspace", "fresh"]])
def test_what_is_quantized_is_ported_as_if_it_were_not_and_said(words: list[str], place: Path, capsys: Capture) -> None:
    (place / "model").rename(place / "plain")
    quantize(place / "plain", place / "model", "gptq")
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "the weights are quantized (gptq)" in told
    assert (
        words[0] != "inspect"
        or "quantized: 14 weights in int4, a scale per 1×16 group\nnot quantized: 7 tensors" in told
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("generation_config.json", '{"eos_token_id": [0', "generation_config.json` cannot be read"),
        ("generation_config.json", '{"eos_token_id": "two"}', "`eos_token_id` is 'two', expected a token id"),
        ("generation_config.json", '{"eos_token_id": {"a": 1}}', "expected a token id"),
        ("generation_config.json", '{"eos_token_id": [true]}', "expected a token id"),
        ("generation_config.json", "[" * 50_000, "nested too deeply"),
        ("tokenizer.json", "{", "no tokenizer that transformers can load"),
        ("tokenizer.json", '{"model": {"type": "NoSuchModel"}}', "no tokenizer that transformers can load"),
        ("tokenizer.json", "[1]", "no tokenizer that transformers can load"),
        ("tokenizer_config.json", "[1]", "no tokenizer that transformers can load"),
        ("tokenizer_config.json", '{"eos_token": 5}', "no tokenizer that transformers can load"),
        ("tokenizer_config.json", '{"model_max_length": "long"}', "has a tokenizer that makes no token ids"),
    ],
)
def test_tokenizer_files(name: str, content: str, what: str, engine: Path, tmp_path: Path, capsys: Capture) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    (model / name).write_text(content)
    assert main(["run", "--engine-dir", str(engine), "--tokenizer-dir", str(model)]) == 2
    assert what in told(capsys)


@pytest.mark.parametrize(
    ("imports", "code", "what"),
    [
        ("import no_such_package; no_such_package.go()", 3, "pip install no_such_package"),
        ("from transformers.utils import gone_since_4_40", 3, "another version of `transformers`"),
        ("1 / 0", 2, "ZeroDivisionError"),
    ],
)
def test_code_that_comes_with_the_model(imports: str, code: int, what: str, place: Path, capsys: Capture) -> None:
    (place / "model" / "mine.py").write_text(f"{imports}\nclass MineConfig: pass\n")
    edit(place / "model" / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.MineConfig"})
    for words in (["inspect", "model"], ["verify", "model", "--random-weights"]):
        assert main([*words, "--trust-remote-code"]) == code
        assert what in told(capsys)


def test_a_bundle_that_is_nested_without_end(place: Path, capsys: Capture) -> None:
    (place / "bundle").mkdir()
    (place / "bundle" / "bundle.json").write_text('{"a":' * 100_000)
    assert main(["diff-layers", "bundle"]) == 2
    assert "nested too deeply" in told(capsys)


@pytest.mark.parametrize("option", ["--max-batch-size", "--max-input-len", "--max-seq-len"])
def test_limits_beyond_all_bounds(option: str, place: Path, capsys: Capture) -> None:
    assert main(["convert", "--model-dir", "model", "--output-dir", "checkpoint"]) == 0
    capsys.readouterr()
    words = ["build", "--checkpoint-dir", "checkpoint", "--output-dir", "out", "--compute-capability", "8.9"]
    assert main([*words, option, "1000000000000"]) == 2
    assert "1000000000000" in told(capsys)
    assert not (place / "out").exists()


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-" + "9" * 20])
def test_numbers_beyond_64_bits(value: str, engine: Path, place: Path, capsys: Capture) -> None:
    given = ["--engine-dir", str(engine), "--tokenizer-dir", str(MODEL_DIR), "--temperature", "1"]
    for words in (["run", *given, "--seed", value], ["diff-layers", "model", "--random-weights", "--seed", value]):
        assert main(words) == 2
        told(capsys)
