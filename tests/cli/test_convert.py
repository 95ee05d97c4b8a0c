"""The command `convert`: what it left out is told, on stdout or beside the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trtllm_port.cli.app import main


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_left_out_is_told(
    as_json: bool, tiny_llama: Path, llama_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    tensors = load_file(tiny_llama / "model.safetensors")
    more = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    save_file(tensors | more, model / "model.safetensors", metadata={"format": "pt"})
    port = tmp_path / "work" / "models" / "llama"
    port.mkdir(parents=True)
    (port.parent / "trtllm-port.toml").touch()
    source = (llama_workspace / "models" / "llama" / "model.py").read_text()
    map_text = """
from trtllm_port.layers import Drop, Search
LlamaForCausalLM.weight_map = {Search(r"rotary_emb\\.inv_freq"): Drop("computed")}
"""
    (port / "model.py").write_text(source + map_text)
    (port / "__init__.py").touch()
    (port.parent / "__init__.py").write_bytes((llama_workspace / "models" / "__init__.py").read_bytes())
    words = ["convert", "--model-dir", str(model), "--output-dir", str(tmp_path / "ck")]
    assert main([*words, "--workspace", str(tmp_path / "work"), *(["--json"] if as_json else [])]) == 0
    out, err = capsys.readouterr()
    told = "dropped model.layers.0.self_attn.rotary_emb.inv_freq and 1 more: computed"
    assert told in (err if as_json else out)
    if as_json:
        assert json.loads(out)["dropped"] == dict.fromkeys(more, "computed")
