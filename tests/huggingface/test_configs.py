"""Configs as people have them, and worse: each is told by its file and key, and none makes anything run on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import DogeConfig

from trtllm_port.errors import ConfigError, EnvironmentLackError, PortError
from trtllm_port.huggingface.configs import read_config, whole_config
from trtllm_port.huggingface.text_part import load_hf_config

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_attention_heads": 4}
CODE = """
from transformers import PreTrainedConfig
{imports}

class MineConfig(PreTrainedConfig):
    model_type = "mine"
"""


def directory(path: Path, **changes: Any) -> Path:
    (path / "config.json").write_text(json.dumps(LLAMA | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"torch_dtype": "fp16"}, "`torch_dtype` is 'fp16', expected a data type of torch"),
        ({"dtype": "torch.half_precision"}, "`dtype` is 'torch.half_precision'"),
        ({"dtype": "nn"}, "`dtype` is 'nn'"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"architectures": 5}, "`architectures` is 5, expected a list"),
        ({"architectures": [5]}, "`architectures` is \\[5\\]"),
        ({"architectures": {"0": "LlamaForCausalLM"}}, "`architectures` is {"),
        ({"model_type": ["llama"]}, "`model_type` is \\['llama'\\]"),
        ({"num_hidden_layers": 10**12}, "`num_hidden_layers` is 1000000000000, more than the 4,096"),
        ({"num_experts": 10**6}, "`num_experts` is 1000000, more than the 65,536"),
        ({"num_key_value_heads": float("inf")}, "`num_key_value_heads` is inf"),
        ({"text_config": {"n_layer": 10**6}}, "`text_config.n_layer` is 1000000"),
        ({"rope_parameters": 3}, "is not a valid `llama` config"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_a_value_that_cannot_be(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=words) as caught:
        load_hf_config(directory(tmp_path, **changes))
    assert str(tmp_path / "config.json") in caught.value.message
    assert caught.value.hint
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "falcon", "qwen2", "deepseek_v3"])
def test_layers_without_end_in_the_names_of_other_types(tmp_path: Path, kind: str) -> None:
    key = {"gpt2": "n_layer"}.get(kind, "num_hidden_layers")
    with pytest.raises(ConfigError, match=f"`{key}` is 1000000000000"):
        whole_config(directory(tmp_path, model_type=kind, **{key: 10**12}))


def test_a_quantized_model_has_the_config_of_the_plain_one(tmp_path: Path) -> None:
    config = load_hf_config(directory(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4}))
    assert not hasattr(config, "quantization_config")


@pytest.mark.parametrize(
    ("imports", "error", "words"),
    [
        ("from no_such_package import call; call()", EnvironmentLackError, "no_such_package"),
        (
            "from transformers.utils import of_long_ago",
            EnvironmentLackError,
            "another version of `transformers`",
        ),
        ("raise RuntimeError('mine alone')", ConfigError, "mine alone"),
        ("1 / 0", ConfigError, "ZeroDivisionError"),
        ("def (", ConfigError, "invalid syntax"),
    ],
)
def test_code_that_comes_with_a_model_and_fails(
    tmp_path: Path, imports: str, error: type[PortError], words: str
) -> None:
    (tmp_path / "configuration_mine.py").write_text(CODE.format(imports=imports))
    directory(tmp_path, model_type="mine", auto_map={"AutoConfig": "configuration_mine.MineConfig"})
    with pytest.raises(error, match=words):
        whole_config(tmp_path, trust_remote_code=True)


def test_many_experts_are_rows_of_one_tensor(tmp_path: Path) -> None:
    DogeConfig(num_experts=16384).save_pretrained(tmp_path)
    assert read_config(tmp_path)["num_experts"] == 16384
