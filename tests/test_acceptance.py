"""What the tool promises, on whole models: generated ports pass, at other sizes too, and edited ones are found out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from trtllm_port.porting.create import create_port
from trtllm_port.verification import VerifySettings, diff_layers, verify

TOKENS = 256


def _acceptance() -> ModuleType:
    """`tests/acceptance.py`, which is no package's module."""
    spec = importlib.util.spec_from_file_location("acceptance", Path(__file__).with_name("acceptance.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = _acceptance()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CASES.SIZES)
def test_a_generated_port_passes_at_its_size_and_at_another(architecture: str, tmp_path: Path) -> None:
    first, second = CASES.SIZES[architecture]
    model_dir = CASES.write_config(architecture, first, tmp_path / "first")
    result = create_port(model_dir, workspace=tmp_path / "workspace")
    assert result.source is not None
    assert not result.source.skeletons
    other_dir = CASES.write_config(architecture, second, tmp_path / "second")
    settings = VerifySettings(tokens=TOKENS, max_new_tokens=24, compute_capabilities=("8.9",))
    for directory, dtype in ((model_dir, "float16"), (other_dir, "float32"), (other_dir, "bfloat16")):
        report = verify(
            directory, workspace=tmp_path / "workspace", dtype=dtype, random_weights=True, settings=settings
        )
        assert report.verdict == "pass", (dtype, report.to_dict()["gates"], report.first_divergence)


EDITS = {
    "gate and up swapped": (
        "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
        "self.act_fn(self.up_proj(x)) * self.gate_proj(x)",
        "model.layers.0.mlp",
    ),
    "a norm's epsilon changed": (
        "self.input_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)",
        "self.input_layernorm = RmsNorm(config.hidden_size, eps=1e-3)",
        "model.layers.0.input_layernorm",
    ),
    "no rotation of the keys": (
        "        key_states = rotary_embedding(key_states, cos, sin)\n",
        "",
        "model.layers.0.self_attn",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_edited_port_fails_at_the_right_module(edit: str, dtype: str, stories: Path, tmp_path: Path) -> None:
    create_port(stories, workspace=tmp_path)
    before, after, module = EDITS[edit]
    _edit(tmp_path / "models" / "llama" / "model.py", re.escape(before), after)
    assert _divergence(stories, tmp_path, dtype) == module


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_dropped_bias_is_found(dtype: str, tmp_path: Path) -> None:
    model_dir = CASES.write_config("Qwen2ForCausalLM", CASES.SIZES["Qwen2ForCausalLM"][0], tmp_path / "model")
    create_port(model_dir, workspace=tmp_path)
    port = tmp_path / "models" / "qwen2"
    _edit(port / "model.py", r"(self\.v_proj = Linear\([^\n]*)\)\n", r"\1, bias=False)\n")
    _edit(port / "convert.py", r"WEIGHT_MAP: WeightMap = {", r'WEIGHT_MAP: WeightMap = {"*.v_proj.bias": None,')
    assert _divergence(model_dir, tmp_path, dtype, random_weights=True) == "model.layers.0.self_attn.v_proj"


def _edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1
    path.write_text(text)


def _divergence(model_dir: Path, workspace: Path, dtype: str, random_weights: bool = False) -> str | None:
    """The module that `diff-layers` blames; the verdict must be fail."""
    report = diff_layers(
        model_dir,
        workspace=workspace,
        dtype=dtype,
        random_weights=random_weights,
        settings=VerifySettings(tokens=TOKENS),
    )
    assert report.verdict == "fail"
    return report.first_divergence
