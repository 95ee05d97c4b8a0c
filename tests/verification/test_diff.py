from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

from trtllm_port.errors import CheckpointError, ConfigError, PortError, RegistryError
from trtllm_port.verification import DiffSettings, Report, Verdict, diff_layers

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report-schema.json").read_text())
SHORT = DiffSettings(tokens=48)
Edit = Callable[[str, str], None]


def problems(report: Any) -> list[str]:
    """What a report has against its schema."""
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(report)]


def compared(model_dir: Path, workspace: Path, **options: Any) -> Report:
    return diff_layers(model_dir, workspace=workspace, settings=options.pop("settings", SHORT), **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_clean_port_makes_no_warning(model_dir: Path, llama_workspace: Path, dtype: str) -> None:
    report = compared(model_dir, llama_workspace, dtype=dtype, settings=DiffSettings(tokens=160))
    assert report.verdict is Verdict.PASS
    assert report.counts["taps"] == {**dict.fromkeys(report.counts["taps"], 0), "pass": len(report.taps)}
    assert [gate.name for gate in report.gates if gate.verdict not in (Verdict.PASS, Verdict.SKIPPED)] == []
    assert "warning" not in report.summary


def test_the_comparison_in_float32_can_be_left_out_and_that_is_said(model_dir: Path, workspace: Path) -> None:
    report = compared(model_dir, workspace, dtype="bfloat16", settings=DiffSettings(tokens=48, logic=False))
    assert report.verdict is Verdict.PASS
    assert {gate.phase for gate in report.gates} & {"logic", "precision"} == {"precision"}
    assert all(tap.logic is None for tap in report.taps)
    assert "the logic phase" in [item.what for item in report.not_exercised]
    whole = compared(model_dir, workspace, dtype="float32", settings=DiffSettings(tokens=48, logic=False))
    assert {gate.phase for gate in whole.gates} & {"logic", "precision"} == {"logic"}
    assert "the logic phase" not in [item.what for item in whole.not_exercised]


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_right_port_passes_and_is_reported(model_dir: Path, workspace: Path, tmp_path: Path, dtype: str) -> None:
    report = compared(model_dir, workspace, dtype=dtype, report_dir=tmp_path / "report")
    assert report.verdict is Verdict.PASS
    assert report.exit_code == 0
    assert report.first_divergence is None
    assert report.subject.dtype == ("float32" if dtype == "auto" else dtype)
    assert "reference executor" in report.executor
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written == report.to_dict()
    assert problems(written) == []
    worst = max(tap["metrics"]["ratio"] for tap in written["taps"] if tap["metrics"])
    assert worst < 1.5
    assert ElementTree.parse(tmp_path / "report" / "junit.xml").getroot().find(".//failure") is None


def test_a_confirmed_cause_is_the_place_to_look_at_next(model_dir: Path, workspace: Path, edit: Edit) -> None:
    wrong = "query_states = rotary_embedding(query_states, sin, cos)"
    edit("query_states = rotary_embedding(query_states, cos, sin)", wrong)
    report = compared(model_dir, workspace)
    assert report.causes[0].status == "confirmed"
    assert report.next_steps[0] == f"Look at {report.causes[0].place}"
    assert wrong in report.next_steps[0]


def test_both_sides_run_where_they_are_told_to(
    model_dir: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is there is not used by one side alone: it rounds in another way than the CPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.PASS
    assert "cpu" in report.executor


@pytest.mark.parametrize(
    ("old", "new", "module", "cause"),
    [
        (
            "silu(self.gate_proj(x)) * self.up_proj(x)",
            "silu(self.up_proj(x)) * self.gate_proj(x)",
            "model.layers.0.mlp",
            "gate and up are swapped",
        ),
        (
            "self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)",
            "self.post_attention_layernorm = RmsNorm(config.hidden_size, 1e-6)",
            "model.layers.0.post_attention_layernorm",
            "wrong epsilon",
        ),
        (
            "        key_states = rotary_embedding(key_states, cos, sin)\n",
            "",
            "model.layers.0.self_attn",
            "rotary embedding",
        ),
    ],
    ids=["gate_up", "epsilon", "rotary"],
)
def test_a_hand_edit_is_found_and_placed(
    model_dir: Path, workspace: Path, edit: Edit, old: str, new: str, module: str, cause: str
) -> None:
    edit(old, new)
    report = compared(model_dir, workspace, dtype="float16")
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    assert report.first_divergence == module
    assert cause in report.causes[0].cause
    assert "models/llama/model.py` line" in report.causes[0].place
    assert problems(report.to_dict()) == []


def test_several_bugs_are_reported_at_once(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("        key_states = rotary_embedding(key_states, cos, sin)\n", "")
    edit("silu(self.gate_proj(x)) * self.up_proj(x)", "silu(self.up_proj(x)) * self.gate_proj(x)")
    edit(
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)",
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, 1e-6)",
    )
    report = compared(model_dir, workspace, dtype="bfloat16")
    parts = ("self_attn", "post_attention_layernorm", "mlp")
    assert [each.module for each in report.divergences] == [
        f"model.layers.{i}.{part}" for i in (0, 1) for part in parts
    ]
    causes = [each.causes[0].cause for each in report.divergences[:3]]
    assert "rotary embedding" in causes[0]
    assert causes[1:] == ["wrong epsilon", "gate and up are swapped"]
    assert problems(report.to_dict()) == []


def test_a_parameter_that_hugging_face_has_not_is_a_verdict(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit(
        "self.o_proj = Linear(config.num_attention_heads * config.head_dim, config.hidden_size, bias=False)",
        "self.o_proj = Linear(config.num_attention_heads * config.head_dim, config.hidden_size)",
    )
    report = compared(model_dir, workspace)
    assert report.exit_code == 1
    assert report.first_divergence == "model.layers.0.self_attn.o_proj"
    assert report.causes[0].status == "confirmed"
    assert "self.o_proj = Linear(" in report.causes[0].place
    assert problems(report.to_dict()) == []


def test_a_broken_checkpoint_is_no_verdict(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    weights = load_file(model_dir / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        compared(tmp_path, workspace)


def test_random_weights_need_a_config_only(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    report = compared(tmp_path, workspace, random_weights=True, dtype="float32")
    assert report.verdict is Verdict.PASS
    assert "trained weights" in {item.what for item in report.not_exercised}


def test_the_prompt_is_cut_to_the_model_and_that_is_said(model_dir: Path, workspace: Path) -> None:
    report = compared(model_dir, workspace, dtype="float32", settings=DiffSettings(tokens=1000))
    assert report.stimulus["tokens"] == 160
    assert report.stimulus["limits"] == ["1000 tokens were asked for, the model takes 160"]


def test_a_prompt_file_needs_a_tokenizer(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Hello")
    with pytest.raises(ConfigError, match="no tokenizer"):
        compared(model_dir, workspace, settings=DiffSettings(prompt_file=tmp_path / "prompt.txt"))


def test_a_port_must_be_registered(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        compared(model_dir, tmp_path)


def test_a_directory_without_a_config_is_refused(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(PortError, match=r"config\.json"):
        compared(tmp_path, workspace)
