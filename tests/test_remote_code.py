"""A model directory is read, not run, whatever code it holds and wherever one stands."""

from __future__ import annotations

import ast
import builtins
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trtllm_port
import trtllm_port.layers
import trtllm_port.runtime
from trtllm_port.cli.app import main
from trtllm_port.errors import CheckpointError
from trtllm_port.evaluation.summarize_sides import load_hugging_face
from trtllm_port.shipped_model import MODEL_DIR

NAMES = {
    "AutoConfig": "configuration_trap.TrapConfig",
    "AutoModel": "modeling_trap.TrapModel",
    "AutoModelForCausalLM": "modeling_trap.TrapForCausalLM",
    "AutoTokenizer": ["tokenization_trap.TrapTokenizer", "tokenization_trap.TrapTokenizer"],
    "AutoProcessor": "processing_trap.TrapProcessor",
}
MODULES = (
    *("configuration_trap", "modeling_trap", "tokenization_trap", "processing_trap", "custom_generate/generate"),
    *("__init__", "conftest", "setup", "sitecustomize", "custom_generate/__init__", "modeling_llama", "llama"),
)
SHADOWS = (
    "torch",
    "json",
    "tensorrt_rtx",
    "safetensors",
    "transformers",
    "tokenizers",
    "numpy",
    "rich",
    "ruff",
    "yaml",
)
PICKLES = (
    "pytorch_model.bin",
    "model.pt",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "vocab.pkl",
    "model.ckpt",
)
TEMPLATE = """\
{{ cycler.__init__.__globals__.os.system('touch TRAP') }}
{{ ''.__class__.__mro__[1].__subclasses__() }}
{% for message in messages %}{{ message['content'] }}{% endfor %}
"""


class Bomb:
    """What a pickle runs when it is opened."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.write_text, (self.sprung, "a pickle")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model with traps in all of its places, in which one stands; none may be sprung, and nobody may be asked."""
    sprung, model = tmp_path / "sprung", tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    code = f"""import traceback
with open({str(sprung)!r}, "a") as file:
    file.write(__file__ + "".join(traceback.format_stack()))
"""
    for name in (*MODULES, *SHADOWS, "datasets/__init__"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / f"{name}.py").write_text(code)
    for name in PICKLES:
        (model / name).write_bytes(pickle.dumps(Bomb(sprung)))
    (model / "chat_template.jinja").write_text(TEMPLATE.replace("TRAP", str(sprung)))
    _edit(model / "config.json", auto_map=NAMES, custom_generate="custom_generate", tokenizer_class="TrapTokenizer")
    _edit(model / "tokenizer_config.json", auto_map=NAMES, tokenizer_class="TrapTokenizer")
    _edit(model / "generation_config.json", auto_map=NAMES, custom_generate="custom_generate")
    monkeypatch.chdir(model)
    asked: list[Any] = []

    def answer(prompt: object = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr(builtins, "input", answer)
    before = [*sys.path]
    yield model
    assert not sprung.exists(), sprung.read_text()
    assert not asked
    assert sys.path == before


def _edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(values | changes))


def test_convert_build_and_run(trap: Path, llama_workspace: Path, tmp_path: Path) -> None:
    checkpoint, engine = str(tmp_path / "checkpoint"), str(tmp_path / "engine")
    place = ["--workspace", str(llama_workspace)]
    assert main(["convert", "--model-dir", ".", "--output-dir", checkpoint, *place]) == 0
    words = ["build", "--checkpoint-dir", checkpoint, "--output-dir", engine, "--backend", "reference", *place]
    assert main([*words, "--max-seq-len", "64"]) == 0
    words = ["run", "--engine-dir", engine, "--tokenizer-dir", ".", "--input-text", "One", "--max-output-len", "2"]
    assert main([*words, "--backend", "reference"]) in (0, 2)
    assert main([*words, "--backend", "reference", "--chat"]) != 0  # the template is refused


def test_a_type_that_only_the_directory_knows(trap: Path, llama_workspace: Path, tmp_path: Path) -> None:
    """Its code is named, and not run, by every command."""
    _edit(trap / "config.json", model_type="trap", architectures=["TrapForCausalLM"])
    place = ["--workspace", str(llama_workspace)]
    for words in (
        ["inspect", "."],
        ["new", ".", "--workspace", str(tmp_path / "new")],
        ["convert", "--model-dir", ".", "--output-dir", str(tmp_path / "out"), *place],
        ["diff-layers", ".", *place],
        ["diff-layers", ".", "--random-weights", *place],
        ["verify", ".", *place],
        ["summarize", "--engine-dir", str(tmp_path), "--hf-model-dir", ".", "--test-hf"],
    ):
        assert main(words) in (2, 3), words


def test_weights_that_are_pickled_stay_closed(trap: Path, llama_workspace: Path, tmp_path: Path) -> None:
    (trap / "model.safetensors").unlink()
    place = ["--workspace", str(llama_workspace)]
    assert main(["convert", "--model-dir", ".", "--output-dir", str(tmp_path / "out"), *place]) == 2
    assert main(["diff-layers", ".", *place]) == 2
    with pytest.raises(CheckpointError, match="pickled weights only"):
        load_hugging_face(trap, dtype="float32", device="cpu")


def test_python_m_takes_no_module_from_where_one_stands(trap: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "trtllm_port", "doctor"], capture_output=True, text=True, check=False)
    assert "transformers" in done.stdout, done.stderr


def test_transformers_is_always_told_whether_to_run_code() -> None:
    """Left to itself it asks on the terminal, and runs the code if the answer is yes."""
    packages = (trtllm_port, trtllm_port.layers, trtllm_port.runtime)
    calls = [
        (path, node)
        for package in packages
        for path in Path(package.__path__[0]).rglob("*.py")
        if "scaffolds" not in path.parts  # which are templates
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto")
        if ast.unparse(node.func).endswith(".from_pretrained")
    ]
    assert calls
    silent = [
        f"{path}:{node.lineno}"
        for path, node in calls
        if "trust_remote_code" not in [keyword.arg for keyword in node.keywords]
    ]
    assert not silent


@pytest.mark.slow
def test_inspect_new_and_verify(trap: Path, tmp_path: Path) -> None:
    place = ["--workspace", str(tmp_path / "work")]
    assert main(["inspect", ".", *place]) == 0
    assert main(["new", ".", *place]) == 0
    few = ["--tokens", "40", "--max-output-len", "4", "--num-samples", "2", "--backend", "reference"]
    assert main(["verify", ".", *place, *few]) in (0, 1, 2)
    assert main(["diff-layers", ".", *place, "--tokens", "40"]) in (0, 1, 2)
    assert main(["verify", ".", "--random-weights", *place, *few]) in (0, 1, 2)
