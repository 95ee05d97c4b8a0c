"""The line that is named is the line that is wrong, also where the port's classes and files have names of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trtllm_port.verification import DiffSettings, Report, diff_layers
from trtllm_port.verification.decode.step_divergence import generation_cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict

SHORT = DiffSettings(tokens=48)
OWN_NAMES = {"LlamaAttention": "Mixer", "LlamaMLP": "FeedForward", "LlamaDecoderLayer": "Block", "LlamaModel": "Trunk"}
MAP = """\
    config_class = LlamaConfig
    weight_map: ClassVar = {
        "*.rotary_emb.inv_freq": None,
        "model.layers.*.mlp.gate_proj.weight": "model.layers.*.mlp.up_proj.weight",
        "model.layers.*.mlp.up_proj.weight": "model.layers.*.mlp.gate_proj.weight",
    }
"""
WRONG_NORM = "RmsNorm(config.hidden_size, 1e-3)"
EDITS = {
    "rotary": ("Embedding(config.rope_parameters, ", "Embedding(config.rope_parameters | {'rope_theta': 5e5}, "),
    "first sum": ("hidden_states = hidden_states + attn_output", "hidden_states = 0.9 * hidden_states + attn_output"),
    "second sum": ("return hidden_states + self.mlp(", "return 0.9 * hidden_states + self.mlp("),
    "scale": ("scale=self.config.head_dim**-0.5", "scale=1.1 * self.config.head_dim**-0.5"),
    "mask": ("causal_mask(position_ids, cache)", "causal_mask(position_ids + 1, cache)"),
    "norm": ("self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)", f"self.norm = {WRONG_NORM}"),
    "map": ("    config_class = LlamaConfig\n", MAP),
}
WRONG = {"map": '"model.layers.*.mlp.up_proj.weight": "model.layers.*.mlp.gate_proj.weight",'}


def edited(workspace: Path, name: str) -> str:
    """Put a bug into the port; return the wrong line."""
    path = workspace / "models" / "llama" / "model.py"
    old, new = EDITS[name]
    source = path.read_text()
    assert source.count(old) == 1
    source = source.replace(old, new)
    for theirs, ours in OWN_NAMES.items():
        source = re.sub(rf"\b{theirs}\b", ours, source)
    path.write_text(source)
    return WRONG.get(name) or next(line.strip() for line in source.splitlines() if new in line)


def shown(report: Report) -> list[str]:
    excerpt = report.excerpts[0]
    assert excerpt.side == "port"
    return [excerpt.lines[line - excerpt.first_line].strip() for line in excerpt.marked]


@pytest.mark.parametrize("name", EDITS)
def test_the_wrong_line_is_named(model_dir: Path, workspace: Path, tmp_path: Path, name: str) -> None:
    wrong = edited(workspace, name)
    report = diff_layers(model_dir, workspace=workspace, settings=SHORT, report_dir=tmp_path / "report")
    assert report.exit_code == 1
    assert report.causes[0].status in ("confirmed", "likely")
    assert wrong in report.causes[0].place
    assert shown(report) == [wrong]
    assert wrong in report.next_steps[0] or f"line {report.excerpts[0].marked[0]}" in report.next_steps[0]


def gates(**verdicts: Verdict) -> list[Gate]:
    return [
        Gate(name=f"{name}.error", phase="logic", verdict=verdict, value=1.0, threshold=1.0, reason="r")
        for name, verdict in verdicts.items()
    ]


def test_what_was_not_looked_at_is_not_called_right() -> None:
    said = generation_cause(gates(prefill=Verdict.PASS, decode=Verdict.PASS, batch=Verdict.FAIL))
    assert said is not None
    assert "one row alone is right, prefill and decode" in said.evidence
    for decode in (Verdict.SKIPPED, Verdict.CANNOT_TELL):
        said = generation_cause(gates(prefill=Verdict.PASS, decode=decode, batch=Verdict.FAIL))
        assert said is not None
        assert "decode" not in said.evidence
        assert "its single steps were not judged" in said.evidence
    assert generation_cause(gates(batch=Verdict.FAIL)) is None
    assert generation_cause(gates(prefill=Verdict.CANNOT_TELL, decode=Verdict.FAIL)) is None
    assert generation_cause(gates(prefill=Verdict.PASS, decode=Verdict.PASS, batch=Verdict.PASS)) is None
