"""What cannot be ported is refused with the reason and the way out, before anything is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.errors import ConfigError, UnsupportedModelError
from trtllm_port.huggingface.random_weights import save_random_checkpoint


def _directory(folder: Path, **values: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no `config\.json`"):
        generate_port(tmp_path)


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        generate_port(tmp_path)


def test_no_model_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no `model_type`"):
        generate_port(_directory(tmp_path, hidden_size=64))


def test_unknown_model_type(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="does not know the model type `brand_new`") as caught:
        generate_port(_directory(tmp_path, model_type="brand_new"))
    assert "--blank" in str(caught.value.hint)


def test_remote_code_is_not_run_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "modeling_mine.py").write_text("raise SystemExit('ran')")
    (tmp_path / "configuration_mine.py").write_text("raise SystemExit('ran')")
    directory = _directory(
        tmp_path,
        model_type="mine",
        auto_map={"AutoConfig": "configuration_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"},
    )
    with pytest.raises(UnsupportedModelError, match="does not know the model type `mine`") as caught:
        generate_port(directory)
    assert "--trust-remote-code" in str(caught.value.hint)


def test_a_key_of_the_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a valid `llama` config: .*hidden_size"):
        generate_port(_directory(tmp_path, model_type="llama", hidden_size="wide"))


def rename_configs(source: str) -> str:
    """A modelling file whose constructors call the config `args`."""
    parts = re.split(r"(?m)^(?=    def |class |def |@)", source)
    renamed = [re.sub(r"(?<![\w.])config(?!\w|=)", "args", p) if p.startswith("    def __init__") else p for p in parts]
    return "".join(renamed).replace("(config=args", "(args")


@pytest.mark.slow
@pytest.mark.parametrize("change", [str, rename_configs])
def test_code_that_comes_with_the_model_is_traced_like_any_other(tmp_path: Path, change: Callable[[str], str]) -> None:
    from transformers.models.llama import configuration_llama, modeling_llama

    for module, name in ((configuration_llama, "configuration_mine"), (modeling_llama, "modeling_mine")):
        text = Path(module.__file__).read_text().replace("from ...", "from transformers.").replace("Llama", "Mine")
        text = text.replace("configuration_llama", "configuration_mine").replace('"llama"', '"mine"')
        (tmp_path / f"{name}.py").write_text(change(text) if module is modeling_llama else text)
    directory = _directory(
        tmp_path,
        model_type="mine",
        architectures=["MineForCausalLM"],
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=96,
        vocab_size=101,
        auto_map={
            "AutoConfig": "configuration_mine.MineConfig",
            "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
        },
    )
    port = generate_port(directory, trust_remote_code=True)
    assert port.architecture == "MineForCausalLM"
    assert "modeling_mine.py, which comes with the model" in port.files["model.py"]
    assert check_port(directory, source=port, trust_remote_code=True).passed
    save_random_checkpoint(directory, tmp_path / "random", trust_remote_code=True)
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "random", trust_remote_code=True)
    assert type(saved).__name__ == "MineForCausalLM"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.BertConfig(), "encoder model"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"], is_decoder=True), "encoder model"),
        (transformers.T5Config(), "encoder-decoder"),
        (transformers.ViTConfig(), "no causal language model"),
    ],
)
def test_no_decoder_only_language_model(config: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        generate_port(config)
