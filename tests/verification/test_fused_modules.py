"""Modules of Hugging Face's that a port computes elsewhere: declared, compared where they can be, else listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trtllm_port.verification import DiffSettings, Report, Verdict, diff_layers, replay

Edit = Callable[[str, str], None]
SHORT = DiffSettings(tokens=48)
SIZES = "config.hidden_size, config.num_{kind}_heads * config.head_dim"
PROJECTION = f"        self.{{name}}_proj = Linear({SIZES}, bias=False)\n"
KINDS = {"q": "attention", "k": "key_value", "v": "key_value"}
CALLS = """        query_states = self.q_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
        key_states = self.k_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
        value_states = self.v_proj(hidden_states).view(0, 0, -1, self.config.head_dim).transpose(1, 2)
"""
FUSED = """        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        self.qkv_proj = Linear(config.hidden_size, heads * config.head_dim, bias=False)
"""
FUSED_CALL = """        sizes = [self.config.num_attention_heads, *[self.config.num_key_value_heads] * 2]
        query_states, key_states, value_states = (
            part.view(0, 0, -1, self.config.head_dim).transpose(1, 2)
            for part in split(self.qkv_proj(hidden_states), [n * self.config.head_dim for n in sizes], -1)
        )
"""
DECLARED = 'computed_elsewhere = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"}'
PROJECTED = ("q_proj", "k_proj", "v_proj")


@pytest.fixture
def fuse(edit: Edit) -> Callable[[str], None]:
    """Fuses the projections of the port by hand and writes a line into the class."""

    def write(line: str) -> None:
        edit("".join(PROJECTION.format(name=name, kind=kind) for name, kind in KINDS.items()), FUSED)
        edit(CALLS, FUSED_CALL)
        edit("    silu,\n", "    silu,\n    split,\n    Transform,\n    Concat,\n")
        names = ", ".join(f'"*.{name}.weight"' for name in PROJECTED)
        weights = f'weight_map = {{({names}): Transform("*.qkv_proj.weight", [Concat(0)])}}'
        edit("    config_class = LlamaConfig\n", f"    config_class = LlamaConfig\n    {weights}\n")
        edit("class LlamaAttention(Module):\n", f"class LlamaAttention(Module):\n    {line}\n")

    return write


def compared(model_dir: Path, workspace: Path, dtype: str = "auto") -> Report:
    return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=SHORT)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_parts_of_a_declared_output_are_compared(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], dtype: str
) -> None:
    fuse(DECLARED)
    report = compared(model_dir, workspace, dtype)
    assert report.verdict is Verdict.PASS
    found = {tap.name: tap for tap in report.taps}
    for name in PROJECTED:
        tap = found[f"model.layers.1.self_attn.{name}"]
        assert tap.verdict is Verdict.PASS
        assert tap.metrics is not None
    assert not any("declares" in item.reason for item in report.not_exercised)


def test_an_undeclared_one_is_missing_and_the_report_shows_the_line(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None]
) -> None:
    fuse("pass")
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.FAIL
    assert report.first_divergence == "model.layers.0.self_attn.q_proj"
    assert DECLARED in report.causes[0].evidence
    assert any(DECLARED in gate.reason for gate in report.gates)


def test_what_is_in_no_output_is_listed(model_dir: Path, workspace: Path, fuse: Callable[[str], None]) -> None:
    fuse("computed_elsewhere = dict.fromkeys(['q_proj', 'k_proj', 'v_proj'])")
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.PASS
    listed = [item for item in report.not_exercised if "declares" in item.reason]
    assert [item.what for item in listed] == [
        "the output of `model.layers.0.self_attn.q_proj`, `model.layers.0.self_attn.k_proj`, "
        "`model.layers.0.self_attn.v_proj` and 3 more"
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (DECLARED.replace('"qkv_proj"', '"o_proj"'), "not the size of all that it is to hold"),
        (DECLARED.replace('"v_proj": "qkv_proj"', '"v_proj": None'), "not the size of all that it is to hold"),
    ],
)
def test_an_output_of_another_size_is_not_compared(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], line: str, words: str
) -> None:
    fuse(line)
    report = compared(model_dir, workspace)
    assert any(words in item.reason for item in report.not_exercised)


def test_a_wrong_order_is_seen(model_dir: Path, workspace: Path, fuse: Callable[[str], None]) -> None:
    fuse('computed_elsewhere = {"q_proj": "qkv_proj", "v_proj": "qkv_proj", "k_proj": "qkv_proj"}')
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.FAIL
    failing = [tap.name for tap in report.taps if tap.verdict is Verdict.FAIL]
    assert "model.layers.0.self_attn.k_proj" in failing
    assert "model.layers.0.self_attn.q_proj" not in failing


def test_a_fault_in_a_declared_output_is_placed(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], edit: Edit
) -> None:
    fuse(DECLARED)
    edit("split(self.qkv_proj(hidden_states), [", "split(self.qkv_proj(hidden_states) * 1.01, [")
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.FAIL
    assert report.first_divergence == "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('computed_elsewhere = {"q_proj": "qkv"}', "has no such module"),
        ('computed_elsewhere = {"o_proj": "qkv_proj"}', "a module of the port itself"),
    ],
)
def test_a_declaration_that_names_no_module_is_the_ports_fault(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], line: str, words: str
) -> None:
    fuse(line)
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.FAIL
    assert words in report.causes[0].evidence


def test_a_declared_module_that_is_not_called_is_missing(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], edit: Edit
) -> None:
    fuse(DECLARED)
    edit("split(self.qkv_proj(hidden_states), [", "split(self.qkv_proj.forward(hidden_states), [")
    report = compared(model_dir, workspace)
    assert report.verdict is Verdict.FAIL
    assert "q_proj is missing" in next(gate.reason for gate in report.gates if gate.name == "taps.paired")


def test_a_bundle_and_a_saved_engine_keep_the_declaration(
    model_dir: Path, workspace: Path, fuse: Callable[[str], None], tmp_path: Path
) -> None:
    fuse(DECLARED)
    diff_layers(model_dir, workspace=workspace, settings=DiffSettings(tokens=48, save=tmp_path / "bundle"))
    report = replay(tmp_path / "bundle")
    assert report.verdict is Verdict.PASS
    assert "model.layers.0.self_attn.q_proj" in [tap.name for tap in report.taps]
