"""The valid files that are mutated: a tiny model with tokenizer, its port, checkpoint, engine, bundle and prompts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PORT = ROOT / "tests" / "layers" / "llama.py"  # a Llama that is written by hand
PUBLISHED = ROOT.parent / "shared" / "published"  # configs of published models, where they are present
NEW_TOKENS = 2


def make_corpus(place: Path) -> Path:
    """Write everything below `place`, through the command line where it writes such files."""
    from trtllm_port.cli.app import main
    from trtllm_port.shipped_model import MODEL_DIR

    _workspace(place / "workspace")
    _model(place / "model", MODEL_DIR)
    _sharded(place / "model", place / "sharded")
    (place / "prompts.txt").write_text("Once upon a time\nThe tower\n")
    (place / "prompts.jsonl").write_text('{"prompt": "Once"}\n{"text": "The tower"}\n"Two"\n')
    before = Path.cwd()
    os.chdir(place)
    try:
        workspace = ["--workspace", "workspace"]
        limits = ["--max-seq-len", "32", "--backend", "reference"]
        tokens = ["--tokens", "16", "--save", "bundle"]
        for words in (
            ["convert", "--model-dir", "model", "--output-dir", "checkpoint", *workspace],
            ["build", "--checkpoint-dir", "checkpoint", "--output-dir", "engine", *limits, *workspace],
            ["diff-layers", "model", *workspace, *tokens],
        ):
            code = main(words)
            if code != 0:
                raise RuntimeError(f"`{' '.join(words)}` ended with {code}")
    finally:
        os.chdir(before)
    return place


def _workspace(place: Path) -> None:
    package = place / "models" / "llama"
    package.mkdir(parents=True)
    shutil.copy(PORT, package / "model.py")
    (package / "__init__.py").write_text("")
    (place / "models" / "__init__.py").write_text(
        "from .llama.model import LlamaForCausalLM\n\nMODEL_MAP = {'LlamaForCausalLM': LlamaForCausalLM}\n"
    )
    (place / "models" / "trtllm-port.toml").touch()


def _model(place: Path, tokenizer: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tokenizer)),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(tokenizer / name, place / name)


def _sharded(model: Path, place: Path) -> None:
    from safetensors.torch import load_file, save_file

    place.mkdir()
    shutil.copyfile(model / "config.json", place / "config.json")
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-{i + 1:05}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, place / shard)
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))


def published_configs() -> list[Path]:
    """Directories with the `config.json` of a published model; none where they are not at hand."""
    return sorted(path.parent for path in PUBLISHED.glob("*/config.json"))


def link_tree(source: Path, target: Path) -> None:
    """Give a case a tree of its own without copying: a file that is changed is written anew."""
    shutil.copytree(source, target, copy_function=os.link)
