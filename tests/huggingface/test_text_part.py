"""A directory of a model of several parts is read as its text part, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from trtllm_port.conversion import read_architectures
from trtllm_port.huggingface.models import load_config, require_causal_lm
from trtllm_port.huggingface.text_part import architectures, loads_whole, text_part
from trtllm_port.layers.config.pretrained import load_hf_config

WITH_HEAD = ("Gemma3ForCausalLM", "Qwen2ForCausalLM", "PersimmonForCausalLM")  # of wholes that have it


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.Gemma3Config(), "Gemma3ForCausalLM"),  # the text config's own class
        (transformers.GotOcr2Config(), "Qwen2ForCausalLM"),  # another model's
        (transformers.Emu3Config(), "Emu3ForCausalLM"),  # listed for the whole, made from the text config
        (transformers.Llama4Config(), "Llama4ForCausalLM"),
        (transformers.FuyuConfig(), "PersimmonForCausalLM"),  # images go through one layer, which needs no config
    ],
)
def test_text_part(config: Any, expected: str, tmp_path: Path) -> None:
    config.architectures = ["SomethingForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    part = load_hf_config(tmp_path)
    assert part.architectures == [expected]
    assert type(part) is type(config.get_text_config(decoder=True))
    if expected in WITH_HEAD:  # the whole has the head
        assert part.tie_word_embeddings == config.tie_word_embeddings
    assert part.vocab_size == config.get_text_config(decoder=True).vocab_size
    assert read_architectures(tmp_path) == [expected]
    assert loads_whole(config) == (expected in WITH_HEAD)


@pytest.mark.parametrize(
    "config",
    [
        transformers.LlamaConfig(),
        transformers.Gemma4UnifiedAssistantConfig(),  # it holds a text config, and computes something else with it
        transformers.DbrxConfig(),
        transformers.BartConfig(),
    ],
)
def test_a_model_of_one_part(config: Any) -> None:
    assert text_part(config) is config
    assert not loads_whole(config)


@pytest.mark.parametrize("given", [None, ["LLaMAForCausalLM"], ["LlamaModel"], ["LlamaForCausalLM"], ["A", "B"]])
def test_the_class_that_transformers_makes_is_the_name_of_a_port(given: list[str] | None, tmp_path: Path) -> None:
    """Transformers does not ask for `architectures`, and `new` registers the class that it made."""
    transformers.LlamaConfig(architectures=given).save_pretrained(tmp_path)
    found = read_architectures(tmp_path)
    assert found == list(dict.fromkeys(["LlamaForCausalLM", *(given or ())]))
    assert found[0] == require_causal_lm(load_config(tmp_path)).__name__


def test_a_class_that_comes_with_the_model_goes_before_one_of_transformers() -> None:
    config = transformers.LlamaConfig(architectures=["LlamaModel"])
    config.auto_map = {"AutoModelForCausalLM": "some/where--modeling_mine.MineForCausalLM"}
    assert architectures(config, trust_remote_code=True) == ["MineForCausalLM", "LlamaModel"]
    assert architectures(config) == ["LlamaForCausalLM", "LlamaModel"]
