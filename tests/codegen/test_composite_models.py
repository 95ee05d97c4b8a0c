"""A port of the text part reads the files of the whole model: names with a beginning, other parts dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trtllm_port.codegen.write.composite_models import WholeNames, whole_names
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.huggingface.text_part import text_part
from trtllm_port.porting.create import create_port

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
}
VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}


@pytest.mark.parametrize(
    ("config", "architecture", "prefixes", "others"),
    [
        (
            transformers.Gemma3Config(text_config=TEXT, vision_config=VISION | {"intermediate_size": 48}),
            "Gemma3ForConditionalGeneration",
            {
                "model.language_model.": "model.",
                "language_model.": "",
                "lm_head.": "lm_head.",
            },  # as saved, as in memory
            ("model.multi_modal_projector.", "model.vision_tower.", "multi_modal_projector.", "vision_tower."),
        ),
        (
            transformers.Qwen3_5Config(text_config=TEXT),
            "Qwen3_5ForConditionalGeneration",
            {"model.language_model.": "model.", "lm_head.": "lm_head."},
            ("model.visual.",),
        ),
    ],
)
def test_names(config: Any, architecture: str, prefixes: dict[str, str], others: tuple[str, ...]) -> None:
    config.architectures = [architecture]
    part = text_part(config)
    found = whole_names(config, getattr(transformers, part.architectures[0]), part)
    assert found.prefixes == prefixes
    assert found.others == others


def test_a_config_of_the_whole_that_names_the_class_of_its_text_part() -> None:
    config = transformers.Qwen3_5Config(text_config=TEXT)
    config.architectures = ["Qwen3_5ForCausalLM"]
    found = whole_names(config, transformers.Qwen3_5ForCausalLM, text_part(config))
    assert found == WholeNames("Qwen3_5ForCausalLM")


@pytest.mark.slow
def test_the_files_of_the_whole_are_converted(tmp_path: Path) -> None:
    config = transformers.GotOcr2Config(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config=VISION | {"output_channels": 16, "num_pos_feats": 8, "global_attn_indexes": [0]},
        image_token_id=4,
    )
    with quiet_transformers():
        whole = transformers.GotOcr2ForConditionalGeneration(config)
        whole.save_pretrained(tmp_path / "whole")
    result = create_port(tmp_path / "whole", workspace=tmp_path)
    assert result.part_of == "GotOcr2ForConditionalGeneration"
    assert result.check is not None
    assert result.check.passed
    converted = convert_checkpoint(tmp_path / "whole", tmp_path / "checkpoint", workspace=tmp_path)
    assert any(name.startswith("vision_tower.") for name in converted.dropped)
    assert "another part of `GotOcr2ForConditionalGeneration`" in next(iter(converted.dropped.values()))
    tensors = load_file(tmp_path / "checkpoint" / "rank0.safetensors")
    expected = whole.model.language_model.state_dict()
    assert torch.equal(tensors["model.embed_tokens.weight"], expected["embed_tokens.weight"])
    assert torch.equal(tensors["model.layers.1.mlp.up_proj.weight"], expected["layers.1.mlp.up_proj.weight"])
    head = {"lm_head.weight"} if config.tie_word_embeddings else set()
    in_memory = {name: tensor.clone() for name, tensor in whole.state_dict().items() if name not in head}
    without = {name.removeprefix("model."): tensor for name, tensor in in_memory.items()}
    for names in (in_memory, without):  # transformers loads these, too
        save_file(names, tmp_path / "whole" / "model.safetensors", metadata={"format": "pt"})
        convert_checkpoint(tmp_path / "whole", tmp_path / "checkpoint", workspace=tmp_path)
        again = load_file(tmp_path / "checkpoint" / "rank0.safetensors")
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_a_part_that_needs_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gemma 3n's vision tower, of timm: its names are not known, but where they begin."""
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION | {"intermediate_size": 48})
    config.architectures = ["Gemma3ForConditionalGeneration"]
    make = transformers.AutoModel.from_config

    def from_config(config: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(config, transformers.SiglipVisionConfig):
            raise ImportError("no such library")
        return make(config, *args, **kwargs)

    monkeypatch.setattr(transformers.AutoModel, "from_config", from_config)
    part = text_part(config)
    found = whole_names(config, getattr(transformers, part.architectures[0]), part)
    assert found.prefixes == {"model.language_model.": "model.", "language_model.": "", "lm_head.": "lm_head."}
    own = ("multi_modal_projector.", "vision_tower.")
    assert found.others == (*(f"model.{name}" for name in own), *own)
