"""There is a report for every divergence: at any module, of any kind, whatever the port's source looks like."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, MixtralConfig

from trtllm_port.cli.terminal.render_report import render_report
from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.locations import WhereToLook
from trtllm_port.verification.diff import Comparison, diff_report
from trtllm_port.verification.judge.gates import Gate, skipped
from trtllm_port.verification.judge.metrics import TapMetrics
from trtllm_port.verification.judge.tap_errors import NO_SUCH_TAP, TapComparison, failure
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.report.finish import finish
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.stimulus.precisions import phases_of
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import LOGITS, module_of

SIZES: dict[str, Any] = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, vocab_size=32)
HEADS: dict[str, Any] = dict(num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64)
CONFIGS = {
    "llama": LlamaConfig(**SIZES, **HEADS),
    "mixtral": MixtralConfig(**SIZES, **HEADS, num_local_experts=4),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, n_positions=64),
    "mamba": MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=32, state_size=4),
}
TESTS = Path(__file__).parents[1]
SOURCES = {
    "generated": lambda: (TESTS / "codegen" / "golden" / "llama" / "model.py").read_text(),
    "hand-written": lambda: (TESTS / "layers" / "llama.py").read_text().replace("class Llama", "class My"),
    "absent": None,
    "broken since": lambda: "class LlamaForCausalLM(:\n",
    "of one line": lambda: "class LlamaForCausalLM: forward = lambda self, x: x",
    "long": lambda: "class LlamaForCausalLM:\n" + "    x = 1\n" * 100,
    "empty": lambda: "",
}
METRICS = TapMetrics(**dict.fromkeys(TapMetrics.__dataclass_fields__, 0.5))
NAN = TapMetrics(**{name: float("nan") for name in TapMetrics.__dataclass_fields__})


def causes() -> tuple[Cause, ...]:
    looks = [
        WhereToLook(),
        WhereToLook(patterns=(r"eps",)),
        WhereToLook(elsewhere=(r"causal_mask\(",), number=3),
        WhereToLook(caller=True),
    ]
    looks += [WhereToLook(parameter="model.layers.0.self_attn.q_proj.weight"), WhereToLook(parameter="")]
    return tuple(Cause(cause="c", status="confirmed", evidence="e", place="p", look=look) for look in looks)


def comparisons(tap: str) -> tuple[TapComparison, ...]:
    numbers: dict[str, Any] = dict(floor=METRICS, ratio=1e5, linf_ratio=float("inf"), token_ratio=1.0)
    return (
        TapComparison(name=tap, verdict=Verdict.FAIL, metrics=METRICS, **numbers),
        TapComparison(name=tap, verdict=Verdict.FAIL, metrics=NAN, **numbers),
        failure(tap, NO_SUCH_TAP),
    )


def phase_of(order: tuple[str, ...], facts: HuggingFaceFacts, found: TapComparison, cause: Cause | None) -> PhaseResult:
    guilty = module_of(found.name)
    passing: Mapping[str, TapComparison] = {tap: TapComparison(name=tap, verdict=Verdict.PASS) for tap in order}
    return PhaseResult(
        phase=phases_of("float32")[0],
        order=order,
        taps={**passing, found.name: found},
        own={**passing, found.name: found},
        ignored={},
        gates=(
            Gate(
                name="taps.own", phase="logic", verdict=Verdict.FAIL, value=1.0, threshold=0.0, reason="r", source="s"
            ),
            skipped("batch", "logic", "r"),
        ),
        divergences=(guilty,),
        causes={} if cause is None else {guilty: (cause,)},
        tokens={found.name: torch.tensor([1.0, float("inf")])},
        floor_tokens={found.name: torch.tensor([0.0, 1.0])},
        variances={},
        facts=facts,
        executor="x",
        yardstick="y",
    )


def model_of(package: Path) -> Any:
    cls = type("MyForCausalLM" if "hand" in str(package) else "LlamaForCausalLM", (), {"weight_map": {}})
    port = SimpleNamespace(package_dir=package, packages=(package,), cls=cls, name="port", digest="d")
    subject = {
        "given": Path("m"),
        "architecture": "A",
        "dtype": "float32",
        "random_weights": True,
        "seed": 0,
        "quantized": None,
        "quantize": None,
        "quantized_inputs": frozenset(),
    }
    return SimpleNamespace(**subject, port=port, config={}, workspace=package)


@pytest.mark.parametrize(
    "name", ["mamba", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "gpt2", "mixtral"))]
)
def test_every_divergence_has_a_report(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = HuggingFaceRunner(AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval())
    order: list[str] = []
    runner.run(torch.tensor([[1, 2]]), on_tap=lambda tap, _: order.append(tap))
    taps, facts = (*order, LOGITS), HuggingFaceFacts.of(runner)
    packages: list[tuple[str, Callable[[], str] | None]] = list(SOURCES.items())
    stimulus = Stimulus(ids=(1, 2), source="s", decode_steps=0, rows=(), row_steps=0)
    for number, tap in enumerate(taps):
        kind, source = packages[number % len(packages)]
        package = tmp_path / kind
        package.mkdir(exist_ok=True)
        if source is not None:
            (package / "model.py").write_text(source())
        found, cause = comparisons(tap)[number % 3], (None, *causes())[number // 3 % 7]
        comparison = Comparison(
            model=model_of(package), stimulus=stimulus, tokens=(), phases=(phase_of(taps, facts, found, cause),)
        )
        report = finish(diff_report(comparison), 0.0, tmp_path / "report")
        render_report(report)
        assert report.exit_code == 1
        assert report.first_divergence == (module_of(tap) or facts.root)
        content = json.loads((tmp_path / "report" / "report.json").read_text())
        for shown in content["excerpts"]:
            assert shown["marked"]
            assert all(0 <= line - shown["first_line"] < len(shown["lines"]) for line in shown["marked"])
        assert (tmp_path / "report" / "report.html").read_text().startswith("<!doctype html>")
        ElementTree.parse(tmp_path / "report" / "junit.xml")  # our own file
    assert "first divergence" in capsys.readouterr().out
