"""The generated Llama: its text is the one that was approved, and it is text that a colleague could have written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from trtllm_port.codegen import PortSource, generate_port

GOLDEN = Path(__file__).parent / "golden" / "llama"
FILES = ("model.py", "config.py", "convert.py")


@pytest.mark.parametrize("file", FILES)
def test_llama_is_the_approved_text(llama: PortSource, file: str) -> None:
    # After a wanted change: python tests/codegen/golden/update.py, and read the difference.
    assert llama.files[file] == (GOLDEN / file).read_text()


def test_a_second_run_from_a_directory_gives_the_same_bytes(llama: PortSource, tmp_path: Path) -> None:
    transformers.LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    seen: list[tuple[str, int, int]] = []
    again = generate_port(tmp_path, name="mine", progress=lambda *step: seen.append(step))
    assert again.files == llama.files
    assert (again.name, again.ledger.used) == ("mine", llama.ledger.used)
    assert {phase for phase, _, _ in seen} == {"trace", "change config keys", "prove"}
    assert all(0 <= done <= total for _, done, total in seen)


def test_llama_is_short_and_complete(llama: PortSource) -> None:
    assert len(llama.files["model.py"].splitlines()) < 150
    assert llama.skeletons == ()
    assert (llama.name, llama.architecture, llama.port_class) == ("llama", "LlamaForCausalLM", "LlamaForCausalLM")
    assert llama.hf_class == "transformers.models.llama.modeling_llama.LlamaForCausalLM"


def test_generated_code_passes_the_linter_unchanged(llama: PortSource, tmp_path: Path) -> None:
    for file, text in llama.files.items():
        (tmp_path / file).write_text(text)
    settings = ["--config", str(Path(__file__).parents[2] / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "INP001"], ["format", "--diff"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_options_follow_the_config(llama: PortSource) -> None:
    model = llama.files["model.py"]
    assert "bias=config.attention_bias" in model
    assert "bias=config.mlp_bias" in model
    assert "Activation(config.hidden_act)" in model
    assert "if config.tie_word_embeddings:" in model
