"""Inputs that are rounded to codes: on both sides in the same way, compared as decisions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.quantized_models import modelopt_fp8, quantize_with
from trtllm_port.building import build_engine
from trtllm_port.cli.app import main
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.evaluation.calibration import calibrate
from trtllm_port.huggingface.compatibility.quantized_inputs import Codes, rounded
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.loading import load_model
from trtllm_port.layers.quantization import QuantizeOptions
from trtllm_port.verification import DiffSettings, diff_layers
from trtllm_port.verification.judge.rounded_inputs import judge_rounding
from trtllm_port.verification.judge.routing import force_rows
from trtllm_port.verification.judge.verdict import Verdict

KINDS = {"FP8": "fp8_e4m3", "W8A8": "int8"}


@pytest.mark.parametrize("algorithm", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_port_that_rounds_its_inputs_is_right(
    tiny_llama: Path, llama_workspace: Path, algorithm: str, dtype: str
) -> None:
    settings = DiffSettings(quantize=QuantizeOptions(algorithm=algorithm), tokens=48)
    report = diff_layers(tiny_llama, workspace=llama_workspace, dtype=dtype, settings=settings)
    assert report.verdict == "pass"
    roundings = [tap for tap in report.taps if tap.name.endswith(f".rounding_to_{KINDS[algorithm]}")]
    assert len(roundings) == 14
    # what follows works on the reference's codes, so that the floor is that of a plain port
    errors = [tap.metrics["rel_l2"] for tap in report.taps if tap.metrics is not None]
    assert max(errors) < {"float32": 1e-5, "float16": 5e-3}[dtype]


def test_a_published_scale_of_inputs_is_used(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "FP8"}
    quantize_with(tiny_llama, tmp_path / "model", settings, modelopt_fp8)
    words = ["diff-layers", str(tmp_path / "model"), "--workspace", str(llama_workspace), "--dtype", "float32"]
    assert main([*words, "--tokens", "48", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(".rounding_to_fp8_e4m3" in tap["name"] for tap in report["taps"]) == 14
    assert not [each for each in report["not_exercised"] if "quantized inputs" in each["what"]]


@pytest.mark.parametrize("factor", [1.03, 0.7])
def test_a_wrong_scale_of_one_input_is_found(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, factor: float
) -> None:
    """The engine's network is given another scale than the checkpoint's at one place."""
    quantize = QuantizeOptions(algorithm="FP8", ranges=calibrate(tiny_llama).ranges, scale_dtype="float32")
    checkpoint, engine = tmp_path / "checkpoint", tmp_path / "engine"
    convert_checkpoint(tiny_llama, checkpoint, workspace=llama_workspace, dtype="float32", weights=quantize)
    file = checkpoint / "rank0.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.self_attn.o_proj.weight_activation_scale"] *= factor
    save_file(tensors, file)
    _sign_again(checkpoint)
    build_engine(checkpoint, engine, workspace=llama_workspace, backend="reference", max_seq_len=64)
    settings = DiffSettings(quantize=quantize, tokens=48, engine_dir=engine)
    report = diff_layers(tiny_llama, workspace=llama_workspace, dtype="float32", settings=settings)
    assert report.verdict == "fail"
    assert report.divergences[0].module.startswith("model.layers.1.self_attn.o_proj")


def _sign_again(checkpoint: Path) -> None:
    from trtllm_port.foundation.digests import file_digest

    content = json.loads((checkpoint / "config.json").read_text())
    content["tensors"] = {name: file_digest(checkpoint / name) for name in content["tensors"]}
    (checkpoint / "config.json").write_text(json.dumps(content))


def test_calibration_sees_the_greatest_inputs(tiny_llama: Path) -> None:
    found = calibrate(tiny_llama, samples=2)
    assert found.text == "random tokens (2 rows of 128): the model has no tokenizer of its own"
    model, _ = load_model(tiny_llama, whole_config(tiny_llama), torch.float32)
    tokens = torch.randint(model.config.vocab_size, (2, 128), generator=torch.Generator().manual_seed(0))
    seen: list[float] = []
    model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(float(inputs[0].abs().max()))
    )
    with torch.no_grad():
        model(tokens)
    assert found.ranges["model.layers.1.mlp.down_proj"] == pytest.approx(max(seen), rel=1e-5)


@pytest.mark.parametrize(("kind", "limit"), [("fp8_e4m3", 448.0), ("int8", 127.0)])
def test_rounding_is_to_the_nearest_and_saturates(kind: str, limit: float) -> None:
    x = torch.tensor([0.0, 0.26, -0.24, 1.0, 2 * limit])
    found = rounded(x, Codes(kind, 0.5))
    assert found[0] == 0
    assert found[-1] == {"fp8_e4m3": 224.0, "int8": 63.5}[kind]
    assert found[1] == {"fp8_e4m3": 0.25, "int8": 0.5}[kind]
    assert torch.equal(rounded(found, Codes(kind, 0.5)), found)


def test_codes_that_differ_are_judged_by_how_many_differ_by_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = rounded(torch.randn(10_000, generator=generator), Codes("int8", 0.03))
    near, far = reference.clone(), reference.clone()
    near[:3] += 0.03
    far[:40] += 0.09
    assert judge_rounding("a", "int8", (near, reference, reference)).verdict is Verdict.PASS
    assert judge_rounding("a", "int8", (far, reference, reference)).verdict is Verdict.FAIL
    many = reference.clone()
    many[:200] += 0.03
    assert judge_rounding("a", "int8", (many, reference, reference)).verdict is Verdict.FAIL
    assert judge_rounding("a", "int8", (many, reference, many)).verdict is Verdict.PASS


def test_what_a_module_makes_of_all_slots_of_a_cache_is_forced_from_the_first_on() -> None:
    known = torch.arange(12.0).reshape(1, 3, 4)
    found = force_rows([{"a": known}], "a", torch.zeros(1, 1, 6, 4), [range(2, 3)])
    assert torch.equal(found[0, 0, :3], known[0])
    assert not found[0, 0, 3:].any()
    one = force_rows([{"a": known}], "a", torch.zeros(1, 1, 4), [range(2, 3)])
    assert torch.equal(one[0, 0], known[0, 2])


def test_a_tokenizer_that_makes_no_tokens_is_none(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes an empty one up for some model types."""
    empty = SimpleNamespace(encode=lambda text: [], decode=lambda ids: "")
    monkeypatch.setattr("trtllm_port.evaluation.calibration.load_tokenizer", lambda *_, **__: empty)
    assert calibrate(tiny_llama, samples=2).text.startswith("random tokens (2 rows of 128)")
