"""What `new` says of its own check."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtllm_port.cli.commands.new import _next
from trtllm_port.cli.terminal.render_port import _check, render_port
from trtllm_port.codegen import SelfCheck

UNSOUND = "Hugging Face's own values at `model.rotary_emb` (prefill) are not finite"


def made(check: SelfCheck, *skeletons: str) -> Any:
    port = SimpleNamespace(package_dir=Path("models/llama"))
    return SimpleNamespace(check=check, source=SimpleNamespace(skeletons=skeletons), port=port)


def test_a_port_that_nothing_could_judge_does_not_agree(capsys: pytest.CaptureFixture[str]) -> None:
    check = SelfCheck(passed=False, taps=40, worst="prefill: a", worst_error=1.0, problem=UNSOUND)
    _check(check)
    said = capsys.readouterr().out
    assert said.strip() == f"could not be checked, because {UNSOUND}"
    way_on = _next(made(check), "model", Path("."))
    assert "trtllm-port verify model" in way_on
    assert "TODO" not in way_on


def test_the_way_on_follows_what_was_found() -> None:
    differs = SelfCheck(passed=False, taps=40, first_divergence="prefill: a", worst="prefill: a", worst_error=1.0)
    assert _next(made(differs), "model", Path("w")) == "trtllm-port diff-layers model --workspace w"
    agrees = SelfCheck(passed=True, taps=40)
    assert _next(made(agrees), "model", Path(".")) == "trtllm-port verify model"
    assert "TODO" in _next(made(SelfCheck(passed=False, problem="1 class"), "LlamaMLP"), "model", Path("."))


def test_what_a_reader_has_to_know_of_the_trace_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    source = SimpleNamespace(skeletons=(), remarks=("traced was the first step of a text",))
    port = SimpleNamespace(written=())
    render_port(SimpleNamespace(port=port, part_of=None, quantized=None, alike=None, source=source, check=None))  # type: ignore[arg-type]
    assert capsys.readouterr().out.strip() == source.remarks[0]
