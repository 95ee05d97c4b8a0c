"""Fixtures shared by all tests: no network, a quiet torch, and the real model where it is present."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: tests never reach for the hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# One for the process: the package that transformers imports a model's own code from stays where it was found first.
_OWN_CODE = tempfile.TemporaryDirectory(prefix="own-code-")
os.environ["HF_MODULES_CACHE"] = _OWN_CODE.name
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, as CI may be: tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="session")
def stories() -> Path:
    """The directory of a small trained Llama; the test is skipped where it is absent."""
    if not (STORIES / "model.safetensors").is_file():
        pytest.skip("the trained test model is not present")
    return STORIES


@pytest.fixture(scope="session")
def llama_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose one port is the Llama that `tests/layers/llama.py` writes by hand."""
    workspace = tmp_path_factory.mktemp("workspace")
    package = workspace / "models" / "llama"
    package.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "layers" / "llama.py", package / "model.py")
    (package / "__init__.py").write_text("")
    (workspace / "models" / "__init__.py").write_text(
        "from .llama.model import LlamaForCausalLM\n\nMODEL_MAP = {'LlamaForCausalLM': LlamaForCausalLM}\n"
    )
    (workspace / "models" / "trtllm-port.toml").touch()
    return workspace


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory: a Llama of two layers with random weights, large enough to tell tokens apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,
        dtype="float32",
        eos_token_id=2,
    )
    directory = tmp_path_factory.mktemp("tiny_llama")
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture
def place(tiny_llama: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a `model` and the `models` of a workspace, which a test may change; the current directory."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    shutil.copytree(llama_workspace / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def import_file() -> Callable[[Path], ModuleType]:
    """Imports a Python file wherever it lies, under a name that no other file has."""

    def imported(path: Path) -> ModuleType:
        name = f"imported_{abs(hash(path))}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return imported


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_llama: Path, llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `tiny_llama`, converted by the port of `llama_workspace`."""
    return _write_checkpoint(tiny_llama, llama_workspace, tmp_path_factory.mktemp("tiny_checkpoint"))


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    """The function (model_dir, workspace, checkpoint_dir, dtype="auto") that converts and returns `checkpoint_dir`."""
    return _write_checkpoint


def _write_checkpoint(model_dir: Path, workspace: Path, checkpoint_dir: Path, dtype: str = "auto") -> Path:
    from trtllm_port.conversion import convert_checkpoint

    convert_checkpoint(model_dir, checkpoint_dir, workspace=workspace, dtype=dtype)
    return checkpoint_dir
