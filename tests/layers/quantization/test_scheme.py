"""What configs say: which modules are quantized how, by each method's own rule; and configs that make no sense."""

from __future__ import annotations

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.layers.quantization import METHODS, QuantizationScheme, read_scheme, scheme_of

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
CT: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True},
            "input_activations": None,
        }
    },
    "ignore": ["lm_head", "re:.*gate$"],
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
MXFP4 = {"quant_method": "mxfp4"}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.layers.0.self_attn*"]}
CONFIGS = {"fp8": FP8, "compressed-tensors": CT, "gptq": GPTQ, "awq": AWQ, "mxfp4": MXFP4, "modelopt": MODELOPT}


def scheme(config: object) -> QuantizationScheme:
    found = read_scheme({"quantization_config": config})
    assert found is not None
    return found


def refusal(config: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_scheme({"quantization_config": config})
    return caught.value.message


def test_every_method_has_a_config_here() -> None:
    assert METHODS.keys() == CONFIGS.keys()
    for method, config in CONFIGS.items():
        assert (scheme(config).method, scheme(config).unread) == (method, ())


NAMES = [
    "model.layers.1.mlp.gate_proj",
    "model.layers.11.mlp.gate",
    "model.layers.1.self_attn.q_proj",
    "lm_head",
    "fc1",
]
LISTS = [
    ["model.layers.*.self_attn", "lm_head"],
    ["model.layers.1"],
    ["mlp.gate"],
    ["q_proj"],
    ["model.layers.1.mlp.gate"],
    ["a|lm_head"],
    [],
]


@pytest.mark.skipif(Version(version("transformers")) < Version("5.21"), reason="its lists match parts of names, too")
@pytest.mark.parametrize("method", ["fp8", "awq", "mxfp4"])
@pytest.mark.parametrize("listed", LISTS)
def test_lists_of_modules_mean_what_they_mean_to_transformers(method: str, listed: list[str]) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    found = scheme({**CONFIGS[method], "modules_to_not_convert": listed})
    assert [found.of(name) is not None for name in NAMES] == [should_convert_module(name, listed) for name in NAMES]


def test_lists_of_compressed_tensors() -> None:
    found = scheme(CT)
    quantized = [name for name in NAMES if found.of(name) is not None]
    assert quantized == ["model.layers.1.mlp.gate_proj", "model.layers.1.self_attn.q_proj", "fc1"]


def test_lists_of_modelopt() -> None:
    found = scheme(MODELOPT)
    assert found.of("model.layers.0.self_attn.q_proj") is None
    assert found.of("lm_head") is None
    assert found.of("model.lm_head") is not None
    assert found.of("model.layers.10.self_attn.q_proj") is not None


def test_the_file_of_modelopt_counts_before_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": FP8}))
    assert scheme_of(tmp_path).method == "fp8"
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert scheme_of(tmp_path).method == "modelopt"
    (tmp_path / "hf_quant_config.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"hf_quant_config\.json` cannot be read"):
        scheme_of(tmp_path)


def test_a_model_that_is_not_quantized(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert scheme_of(tmp_path) is None
    assert read_scheme({"quantization_config": None, "text_config": 3}) is None
    assert read_scheme({"text_config": {"quantization_config": FP8}}) is not None


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "quanto", "hqq", "FP8", None, 3, ["fp8"], {}])
def test_methods_that_are_not_read(method: object) -> None:
    with pytest.raises(UnsupportedModelError, match="those that are read are fp8, compressed-tensors, gptq, awq"):
        read_scheme({"quantization_config": {"quant_method": method, "bits": 4}})


@pytest.mark.parametrize("config", [[1], "fp8", 3, True])
def test_a_config_that_is_no_object(config: object) -> None:
    assert "`quantization_config` is " in refusal(config)


def changed(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    result = copy.deepcopy(config)
    place: Any = result
    *keys, last = path.split(".")
    for key in keys:
        place = place[key]
    place[last] = value
    return result


WEIGHTS = "config_groups.group_0.weights"
ODD = [
    (FP8, "fmt", "e5m2", "expected one of e4m3"),
    (FP8, "activation_scheme", 1, "expected one of dynamic, static"),
    (FP8, "weight_block_size", [128], "expected two whole numbers above 0"),
    (FP8, "weight_block_size", [128, 0], "expected two whole numbers above 0"),
    (FP8, "weight_block_size", "128", "expected two whole numbers above 0"),
    (FP8, "modules_to_not_convert", "lm_head", "expected a list of names"),
    (FP8, "modules_to_not_convert", [3], "expected a list of names"),
    (FP8, "modules_to_not_convert", ["("], "which is no regular expression"),
    (CT, "format", "marlin-24", "expected one of float-quantized"),
    (CT, "format", 3, "expected one of float-quantized"),
    (CT, "config_groups", None, "has no group with weights"),
    (CT, "config_groups", [], "is [], expected an object"),
    (CT, "config_groups.group_0", 3, "is 3, expected an object"),
    (CT, "config_groups.group_0.targets", "Linear", "expected a list of names"),
    (CT, "config_groups.group_0.targets", ["re:["], "which is no regular expression"),
    (CT, "config_groups.group_0.format", "sparse-bitmask", "expected one of"),
    (CT, f"{WEIGHTS}.num_bits", 3, "is 3 of type int, expected int 4 or 8"),
    (CT, f"{WEIGHTS}.num_bits", "4", "expected a whole number above 0"),
    (CT, f"{WEIGHTS}.num_bits", True, "expected a whole number above 0"),
    (CT, f"{WEIGHTS}.type", "float", "which the format `pack-quantized` does not have"),
    (CT, f"{WEIGHTS}.type", "complex", "expected one of int, float"),
    (CT, f"{WEIGHTS}.strategy", "diagonal", "expected one of tensor, channel"),
    (CT, f"{WEIGHTS}.strategy", "token", "is token with group_size 128"),
    (CT, f"{WEIGHTS}.strategy", "block", "is block with group_size 128"),
    (CT, f"{WEIGHTS}.group_size", 0, "expected a whole number above 0"),
    (CT, f"{WEIGHTS}.group_size", None, "is group with group_size None"),
    (CT, f"{WEIGHTS}.symmetric", "yes", "expected true or false"),
    (CT, f"{WEIGHTS}.dynamic", True, "is True, expected false"),
    (CT, "config_groups.group_0.input_activations", {"dynamic": "often"}, "expected true, false or local"),
    (CT, "config_groups.group_0.input_activations", {"strategy": "channel"}, "is channel with group_size None"),
    (CT, "config_groups.group_0.input_activations", {"strategy": "group"}, "is group with group_size None"),
    (CT, "config_groups.group_0.output_activations", {"num_bits": 8}, "quantized outputs are not read"),
    (CT, "sparsity_config", {"format": "sparse-24-bitmask"}, "sparse weights are not read"),
    (CT, "ignore", {"a": 1}, "expected a list of names"),
    (GPTQ, "bits", 3, "is 3, expected one of 4, 8"),
    (GPTQ, "group_size", 0, "expected a whole number above 0"),
    (GPTQ, "group_size", 128.0, "expected a whole number above 0"),
    (GPTQ, "checkpoint_format", "marlin", "expected one of gptq, gptq_v2"),
    (GPTQ | {"format": "gptq"}, "checkpoint_format", "gptq_v2", "is 'gptq', but `checkpoint_format` is 'gptq_v2'"),
    (GPTQ, "dynamic", [1], "is [1], expected an object"),
    (GPTQ, "dynamic", {"+:(": {}}, "which is no regular expression"),
    (GPTQ, "dynamic", {"a": {"bits": 2}}, "is 2, expected one of 4, 8"),
    (GPTQ, "dynamic", {"a": None}, "is null, expected an object"),
    (AWQ, "bits", 8, "is 8, expected one of 4"),
    (AWQ, "version", "gemv", "is 'gemv', expected one of gemm"),
    (AWQ, "zero_point", 1, "expected true or false"),
    (MODELOPT, "quant_algo", "W4A8_AWQ", "is 'W4A8_AWQ', expected one of FP8"),
    (MODELOPT, "quant_algo", 4, "is 4, expected a word"),
    (MODELOPT, "quant_algo", "MIXED_PRECISION", "names no layer"),
    (MODELOPT, "group_size", -1, "expected a whole number above 0"),
    (MODELOPT, "quantized_layers", [1], "expected an object"),
    (MODELOPT, "ignore", "lm_head", "expected a list of names"),
]


@pytest.mark.parametrize(("config", "path", "value", "message"), ODD)
def test_odd_values(config: dict[str, Any], path: str, value: object, message: str) -> None:
    assert message in refusal(changed(config, path, value))


def test_all_is_reported_at_once_and_sorted() -> None:
    message = refusal({**FP8, "fmt": 3, "activation_scheme": 4, "weight_block_size": 5})
    assert [part.split("`")[1].split(".")[1] for part in message.split("; ")] == [
        "activation_scheme",
        "fmt",
        "weight_block_size",
    ]


def test_classes_that_are_quantized_differently() -> None:
    config = changed(CT, "config_groups.group_1", copy.deepcopy(CT["config_groups"]["group_0"]))
    assert scheme(config).method == "compressed-tensors"
    config["config_groups"]["group_1"] |= {"targets": ["Embedding"], "format": "int-quantized"}
    config["config_groups"]["group_1"]["weights"] = {"num_bits": 8, "strategy": "channel"}
    assert "quantizes several classes of modules differently" in refusal(config)


def test_keys_that_are_not_known_are_told() -> None:
    assert scheme({**FP8, "rounding": "up"}).unread == ("quantization_config.rounding",)
    unknown = changed(CT, f"{WEIGHTS}.shift", 3)
    assert scheme(unknown).unread == ("quantization_config.config_groups.group_0.weights.shift",)


def test_the_cache() -> None:
    assert scheme({**CT, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}).kv_cache == "fp8_e4m3"
    assert scheme({**MODELOPT, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}).kv_cache == "fp8_e4m3"
    assert scheme({**MODELOPT, "kv_cache_quant_algo": "NVFP4"}).kv_cache == "nvfp4"
    assert scheme(MODELOPT).kv_cache is None


def test_an_expression_that_would_take_for_ever_is_refused() -> None:
    settings = {"quant_method": "gptq", "bits": 4, "dynamic": {r"-:(\w|\w\w)*\d$": {}}}
    scheme = read_scheme({"quantization_config": settings})
    assert scheme is not None
    with pytest.raises(CheckpointError, match=r"the regular expression .* takes longer than"):
        scheme.of("a" * 60)
