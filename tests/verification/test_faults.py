"""What the port itself does wrong is a verdict with a place, wherever it raises; what the user gave is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from trtllm_port.errors import CheckpointError, NetworkError, PortCodeError
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification import DiffSettings, Report, Verdict, VerifySettings, diff_layers, verify
from trtllm_port.verification.report.port_faults import fault_of

Edit = Callable[[str, str], None]
MASK = "attention_mask = causal_mask(position_ids, cache)"
ATTENDED = "hidden_states = hidden_states + attn_output\n"
ROWS = "arange(shape(input_ids, 0), like=input_ids)"
EMBEDDED = "self.embed_tokens(input_ids)"
OUTPUT = "attn_output.view(0, 0, -1)"
BUGS = {
    "code": (OUTPUT, "attn_output.nothing(0)", "model.layers.0.self_attn", "self.o_proj(attn_output.nothing(0))"),
    "types": (ATTENDED, ATTENDED.replace("\n", ".to('int64')\n"), "model.layers.0", "attn_output.to('int64')"),
    "slot": (
        MASK,
        f"{MASK}\n        cache.position_ids = position_ids + 1",
        "model.layers.0.self_attn",
        "cache.update(",
    ),
    "index": (EMBEDDED, "self.embed_tokens(input_ids + 96)", "model.embed_tokens", "self.embed_tokens = Embedding("),
    "init": ("self.layer_idx = layer_idx\n", "self.layer_idx = layer_idx + None\n", None, "layer_idx + None"),
}


def compared(model_dir: Path, workspace: Path, dtype: str = "float32") -> Report:
    return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=DiffSettings(tokens=48))


@pytest.mark.parametrize("bug", BUGS)
def test_a_port_that_cannot_be_run_fails_at_the_line(model_dir: Path, workspace: Path, edit: Edit, bug: str) -> None:
    old, new, module, line = BUGS[bug]
    edit(old, new)
    report = compared(model_dir, workspace, "bfloat16")
    assert (report.verdict, report.exit_code, report.first_divergence) == (Verdict.FAIL, 1, module)
    assert line in report.causes[0].place
    assert line in report.excerpts[0].lines[report.excerpts[0].marked[0] - report.excerpts[0].first_line]


@pytest.mark.parametrize(("bug", "stage"), [("init", 0), ("types", 1), ("index", 2)])
def test_verify_says_at_which_stage(model_dir: Path, workspace: Path, edit: Edit, bug: str, stage: int) -> None:
    edit(*BUGS[bug][:2])
    report = verify(
        model_dir, workspace=workspace, settings=VerifySettings(tokens=48, max_new_tokens=4, backend="reference")
    )
    assert (report.verdict, report.kind) == (Verdict.FAIL, "verify")
    left = [Verdict.SKIPPED] * (4 - stage)
    assert [each.verdict for each in report.stages] == [*[Verdict.PASS] * stage, Verdict.FAIL, *left]


@pytest.mark.parametrize(
    ("old", "new", "module", "gate"),
    [
        (
            MASK,
            f"{MASK}\n        cache.position_ids = position_ids + (position_ids[:, 0:1] > 45).to('int64')",
            "model.layers.0.self_attn",
            "decode.runs",
        ),
        (
            EMBEDDED,
            f"self.embed_tokens(input_ids + ({ROWS} > 0).view(-1, 1).to('int64') * 96)",
            "model.embed_tokens",
            "batch.runs",
        ),
    ],
    ids=["last step", "second row"],
)
def test_what_fails_in_use_only_is_found_beside_what_is_right(
    model_dir: Path, workspace: Path, edit: Edit, old: str, new: str, module: str, gate: str
) -> None:
    edit("    gather_tokens,\n", "    gather_tokens,\n    arange,\n    shape,\n")
    edit(old, new)
    report = compared(model_dir, workspace)
    assert gate in [each.name for each in report.gates if each.verdict is Verdict.FAIL]
    assert (report.first_divergence, report.causes[0].id) == (module, "port.runs")
    assert report.taps
    assert all(tap.verdict in (Verdict.PASS, Verdict.WARN) for tap in report.taps)


def test_what_is_not_finite_fails(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("silu(self.gate_proj(x))", "silu(self.gate_proj(x) / 0.0)")
    assert compared(model_dir, workspace).first_divergence == "model.layers.0.mlp"


def test_a_wrong_checkpoint_and_our_own_bugs_are_no_verdict(
    model_dir: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(model_dir / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((model_dir / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        compared(tmp_path, workspace)
    monkeypatch.setattr("trtllm_port.verification.sides.hugging_face_sides.run_yardstick", None)
    with pytest.raises(TypeError):
        compared(model_dir, workspace)


def test_who_is_to_blame(workspace: Path) -> None:
    port = find_port(workspace, "LlamaForCausalLM")
    assert fault_of(ValueError("elsewhere"), port) is None
    assert fault_of(CheckpointError("the files"), port) is None
    for error in (NetworkError("refused"), PortCodeError("to fill in")):
        fault = fault_of(error, port)
        assert fault is not None
        assert (fault.what, fault.module, fault.excerpt) == (error.message, None, None)
    fault = fault_of(LayerExecutionError("out of range", layer="model.norm/mul_2"), port)
    assert fault is not None
    assert (fault.module, fault.operation) == ("model.norm", "mul")
