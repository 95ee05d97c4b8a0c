"""A plain model's weights are quantized by rounding on their way into the checkpoint."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trtllm_port.building import build_engine
from trtllm_port.cli.app import main
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.conversion.opening import open_rounded, plan_conversion
from trtllm_port.errors import ConfigError, EngineError
from trtllm_port.layers.quantization import CheckpointWeights, QuantizeOptions, Rounding, read_formats
from trtllm_port.layers.weights import SafetensorsFile
from trtllm_port.registry.port_code import port_code
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime.engines.quantized_layers import report_quantized
from trtllm_port.runtime.network import NetworkFile


def convert(model: Path, output: Path, workspace: Path, dtype: str = "float16", **options: object) -> CheckpointWeights:
    quantize = QuantizeOptions(**options)  # type: ignore[arg-type]
    convert_checkpoint(model, output, workspace=workspace, dtype=dtype, weights=quantize)
    content = json.loads((output / "config.json").read_text())
    return CheckpointWeights(SafetensorsFile(output / "rank0.safetensors"), read_formats(content), dtype)


@pytest.mark.parametrize(("algorithm", "steps"), [("W4A16", 7.5), ("W8A16", 127.5)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_weight_is_the_nearest_multiple(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, algorithm: str, steps: float, dtype: str
) -> None:
    found = convert(tiny_llama, tmp_path / "ck", llama_workspace, dtype, algorithm=algorithm, group_size=16)
    plain = load_file(tiny_llama / "model.safetensors")
    for name, tensor in plain.items():
        if not name.endswith("_proj.weight"):
            assert torch.equal(found.tensor(name).float(), tensor.to(getattr(torch, dtype)).float())
            continue
        groups = tensor.float().reshape(tensor.shape[0], -1, 16 if algorithm == "W4A16" else tensor.shape[1])
        scale = groups.abs().amax(-1, keepdim=True) / steps
        error = (found.tensor(name).float().reshape(groups.shape) - groups).abs()
        assert bool((error <= scale * 0.5 * 1.02 + groups.abs() * 2**-7).all()), name  # and the rounding of scales
        assert not torch.equal(found.tensor(name).float(), tensor.float())


def test_codes_are_the_same_in_every_data_type() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    rounding = Rounding("W4A16", 32, torch.float16)
    assert torch.equal(rounding.rounded(weight).codes, rounding.rounded(weight.double()).codes)
    assert rounding.rounded(weight).scale.dtype == torch.float16


def test_a_group_of_zeros_stays_zero() -> None:
    assert torch.equal(Rounding("W4A16", 16, torch.float16).rounded(torch.zeros(2, 32)).parameter(), torch.zeros(2, 32))


def test_modules_are_left_out_by_pattern(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    excluded = ("*.self_attn.*", "model.layers.1.mlp.up_proj")
    convert(tiny_llama, tmp_path / "ck", llama_workspace, algorithm="W8A16", exclude_modules=excluded)
    section = json.loads((tmp_path / "ck" / "config.json").read_text())["quantization"]
    assert sorted(section["parameters"]) == sorted(
        f"model.layers.{layer}.mlp.{name}_proj.weight"
        for layer in range(2)
        for name in ("gate", "up", "down")
        if (layer, name) != (1, "up")
    )
    assert {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"} <= set(
        section["exclude_modules"]
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("options", [("W8A16", 128), ("W4A16", 16), ("W4A16", 128)])
def test_the_bytes_that_a_module_takes_are_known_before(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, options: tuple[str, int], dtype: str
) -> None:
    quantize = QuantizeOptions(algorithm=options[0], group_size=options[1])
    port = find_port(llama_workspace, "LlamaForCausalLM")
    with port_code(port), closing(open_rounded(tiny_llama, quantize)) as source:
        plan_conversion(port.cls(port.cls.config_class.from_hugging_face(tiny_llama, dtype=dtype)), source)
    convert(tiny_llama, tmp_path / "ck", llama_workspace, dtype, algorithm=options[0], group_size=options[1])
    convert_checkpoint(tiny_llama, tmp_path / "plain", workspace=llama_workspace, dtype=dtype)
    stored, plain = (load_file(tmp_path / name / "rank0.safetensors") for name in ("ck", "plain"))
    assert len(source.entries) == 14
    for entry in source.entries:
        (module,) = entry.modules
        assert entry.sources == (f"{module}.weight",)
        assert entry.bytes == sum(tensor.nbytes for name, tensor in stored.items() if name.startswith(f"{module}."))
        assert entry.plain_bytes == plain[f"{module}.weight"].nbytes


def test_what_fits_nothing_is_refused(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no module that could be quantized fits `\*.nothing`"):
        convert(tiny_llama, tmp_path / "ck", llama_workspace, algorithm="W8A16", exclude_modules=("*.nothing",))
    with pytest.raises(ConfigError, match="can be quantized by `W8A16`"):
        convert(tiny_llama, tmp_path / "ck", llama_workspace, algorithm="W8A16", exclude_modules=("model.*",))
    assert not (tmp_path / "ck").exists()


def test_the_older_words_mean_the_same(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    words = ["convert", "--model-dir", str(tiny_llama), "--workspace", str(llama_workspace), "--output-dir"]
    assert main([*words, str(tmp_path / "new"), "--quant-algo", "W4A16", "--group-size", "16"]) == 0
    old = ["--use_weight_only", "--weight_only_precision", "int4", "--group-size", "16"]
    assert main([*words, str(tmp_path / "old"), *old]) == 0
    files = [tmp_path / name / "rank0.safetensors" for name in ("new", "old")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert main([*words, str(tmp_path / "both"), *old, "--dequantize"]) == 2


@pytest.mark.parametrize(("algorithm", "dtype", "lacking"), [("W4A16", "int4", "7.5"), ("W8A16", "int8", None)])
def test_the_engine_keeps_the_weights_narrow(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, algorithm: str, dtype: str, lacking: str | None
) -> None:
    convert(tiny_llama, tmp_path / "ck", llama_workspace, algorithm=algorithm, group_size=16)
    engine = tmp_path / "engine"
    result = build_engine(
        tmp_path / "ck", engine, workspace=llama_workspace, compute_capabilities=["8.9"], max_seq_len=64
    )
    (build,) = result.engines
    assert sum(each.weights for each in build.quantized) == 14
    assert all(each.kept and each.dtype == dtype for each in build.quantized)
    assert {how for each in build.quantized for how in each.how} == {"dequantized in the kernel that multiplies it"}
    assert build.weights_bytes is not None
    assert build.weights_bytes < (tmp_path / "ck" / "rank0.safetensors").stat().st_size * 1.1
    network = NetworkFile.load(engine / "rank0.network.json")
    assert not any(each.kept for each in report_quantized(network, []))  # of an engine that has none of the codes
    if lacking is not None:
        with pytest.raises(EngineError, match=f"is {dtype}, which compute capability {lacking} does not have"):
            build_engine(tmp_path / "ck", engine, workspace=llama_workspace, compute_capabilities=[lacking])
