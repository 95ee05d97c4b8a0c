from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trtllm_port import verification
from trtllm_port.cli.app import main
from trtllm_port.verification import DiffSettings, Report, Verdict, VerifySettings
from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.report.report import Divergence, Stage, Subject, TapReport

CAUSES = (Cause(cause="wrong epsilon", status="likely", evidence="each token", place="`model.py` line 9"),)
DIVERGENCE = Divergence(
    module="model.norm",
    class_name="LlamaRMSNorm",
    phase="logic",
    tap="model.norm",
    rel_l2=0.1,
    floor=1e-7,
    ratio=1e6,
    end_to_end=1e6,
    inherited=1.0,
    order=7,
    note="",
    causes=CAUSES,
)
PASSED = Report(
    kind="diff-layers",
    verdict=Verdict.PASS,
    summary="the port is right",
    subject=Subject(
        model="m",
        architecture="LlamaForCausalLM",
        port="llama",
        port_digest="x",
        dtype="bfloat16",
        random_weights=False,
        seed=0,
    ),
    executor="reference executor",
    reference={},
    stimulus={},
    first_divergence=None,
    divergence=None,
    divergences=(),
    causes=(),
    stages=(),
    gates=(Gate(name="prefill.kl", phase="logic", verdict=Verdict.PASS, value=0.1, threshold=1.0, reason="r"),),
    taps=(),
    ignored={},
    position_profile={},
    not_exercised=(NotExercised(what="sliding window", reason="too long"),),
    versions={},
    commands=(),
    seconds=1.0,
)
FAILED = replace(
    PASSED,
    verdict=Verdict.FAIL,
    summary="the port first differs at `model.norm`",
    first_divergence="model.norm",
    divergence=DIVERGENCE,
    divergences=(DIVERGENCE, replace(DIVERGENCE, module="lm_head", causes=())),
    causes=CAUSES,
    taps=(
        TapReport(
            name="model.norm",
            class_name="LlamaRMSNorm",
            verdict=Verdict.FAIL,
            note="",
            metrics={"rel_l2": 0.1, "floor": 1e-7, "ratio": None, "token_ratio": 1e6},
            logic=None,
            own={"ratio": None},
            logic_own=None,
            positions=(),
        ),
    ),
    stages=(Stage(name="convert", verdict=Verdict.PASS, seconds=0.5, detail="47 tensors"),),
)
Calls = list[tuple[Path, dict[str, Any]]]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[[Report], Calls]:
    """Replaces the stage by a given report."""

    def install(report: Report) -> Calls:
        calls: Calls = []

        def stage(model_dir: Path, **options: Any) -> Report:
            calls.append((model_dir, options))
            return report

        monkeypatch.setattr(verification, "diff_layers", stage)
        monkeypatch.setattr(verification, "verify", stage)
        return calls

    return install


@pytest.mark.parametrize("command", ["diff-layers", "verify"])
@pytest.mark.parametrize(
    ("report", "code"), [(PASSED, 0), (FAILED, 1), (replace(PASSED, verdict=Verdict.CANNOT_TELL), 1)]
)
def test_the_verdict_is_the_exit_code(
    outcome: Callable[[Report], Calls], model_dir: Path, command: str, report: Report, code: int
) -> None:
    outcome(report)
    assert main([command, str(model_dir)]) == code


def test_the_first_divergence_is_on_top(
    outcome: Callable[[Report], Calls], model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(FAILED)
    main(["diff-layers", str(model_dir)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAIL: the port first differs at `model.norm`"
    shown = "\n".join(lines[:8])
    assert "first divergence: model.norm (LlamaRMSNorm), logic phase" in shown
    assert "likely cause: wrong epsilon: each token" in shown
    assert "look at `model.py` line 9" in shown
    assert "NOT EXERCISED: sliding window: too long" in "\n".join(lines)


def test_json_is_the_report(
    outcome: Callable[[Report], Calls], model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    outcome(FAILED)
    assert main(["diff-layers", str(model_dir), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == FAILED.to_dict()


def test_options_reach_the_comparison(outcome: Callable[[Report], Calls], model_dir: Path, tmp_path: Path) -> None:
    calls = outcome(PASSED)
    words = "--dtype float16 --random-weights --tokens 64 --seed 3 --workspace w --report_dir r --prompt_file p.txt"
    assert main(["diff-layers", str(model_dir), *words.split()]) == 0
    directory, options = calls[0]
    assert directory == model_dir
    assert options["dtype"] == "float16"
    assert options["random_weights"] is True
    assert (options["workspace"], options["report_dir"]) == (Path("w"), Path("r"))
    assert options["settings"] == DiffSettings(tokens=64, seed=3, prompt_file=Path("p.txt"))


def test_options_reach_the_verification(outcome: Callable[[Report], Calls], model_dir: Path) -> None:
    calls = outcome(PASSED)
    words = (
        "--compute-capability 8.6 --compute-capability 12.0 --max_output_len 9 --backend tensorrt_rtx --dataset a.csv"
    )
    assert main(["verify", str(model_dir), *words.split()]) == 0
    assert calls[0][1]["settings"] == VerifySettings(
        compute_capabilities=("8.6", "12.0"), max_new_tokens=9, backend="tensorrt_rtx", dataset="a.csv"
    )


def test_the_stages_are_shown(
    outcome: Callable[[Report], Calls], model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(FAILED)
    main(["verify", str(model_dir)])
    assert "convert   pass      0.5       47 tensors" in capsys.readouterr().out
