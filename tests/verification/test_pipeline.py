from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trtllm_port.verification import Verdict, VerifySettings, verify

QUICK = VerifySettings(tokens=48, max_new_tokens=6, backend="reference")
Edit = Callable[[str, str], None]


def test_the_whole_way(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = verify(
        model_dir,
        workspace=workspace,
        dtype="bfloat16",
        report_dir=tmp_path,
        settings=QUICK,
        progress=lambda phase, done, total: said.append(phase),
    )
    assert report.exit_code == 0
    assert [stage.name for stage in report.stages] == ["convert", "build", "prompt", "rouge", "diff-layers"]
    skipped = {stage.name: stage.detail for stage in report.stages if stage.verdict is Verdict.SKIPPED}
    assert skipped == {"rouge": "the model directory has no tokenizer"}
    assert {"rouge", "compilation"} <= {item.what for item in report.not_exercised}
    assert {"prompt", "compare float32", "compare bfloat16"} <= set(said)
    written = {path.name for path in tmp_path.iterdir()} - {"workspace"}
    assert written == {"report.json", "report.html", "junit.xml", "convert.json", "build.json", "prompt.json"}
    continuations = json.loads((tmp_path / "prompt.json").read_text())["continuations"]
    assert [len(each["port"]) for each in continuations] == [6] * 5


def test_a_wrong_port_fails_in_every_stage_that_can_see_it(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("silu(self.gate_proj(x)) * self.up_proj(x)", "silu(self.up_proj(x)) * self.gate_proj(x)")
    report = verify(model_dir, workspace=workspace, dtype="float32", settings=QUICK)
    verdicts = {stage.name: stage.verdict for stage in report.stages}
    assert report.exit_code == 1
    assert verdicts["prompt"] is verdicts["diff-layers"] is Verdict.FAIL
    assert report.first_divergence == "model.layers.0.mlp"


def test_a_port_that_cannot_hold_the_weights_fails_at_once(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("config.intermediate_size, config.hidden_size, bias=False", "config.intermediate_size, config.hidden_size")
    report = verify(model_dir, workspace=workspace, settings=QUICK)
    assert report.exit_code == 1
    assert report.first_divergence == "model.layers.0.mlp.down_proj"
    assert [stage.verdict for stage in report.stages] == [Verdict.FAIL, *[Verdict.SKIPPED] * 4]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_trained_model_passes_and_is_compiled(stories: Path, workspace: Path, dtype: str) -> None:
    settings = VerifySettings(compute_capabilities=("8.6", "8.9", "12.0"))
    report = verify(stories, workspace=workspace, dtype=dtype, settings=settings)
    assert report.verdict is Verdict.PASS
    assert "8.6, 8.9, 12.0" in next(stage.detail for stage in report.stages if stage.name == "build")
    if dtype == "float32":
        assert "200 greedy tokens on each of 5 prompts equal" in report.stages[2].detail
    worst = {name: max((tap.metrics or {}).get(name) or 0.0 for tap in report.taps) for name in ("rel_l2", "ratio")}
    assert worst["rel_l2"] < 1e-5 if dtype == "float32" else worst["ratio"] < 1.5
