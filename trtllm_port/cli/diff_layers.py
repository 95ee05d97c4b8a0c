"""`trtllm-port diff-layers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtllm_port.cli import console, options

if TYPE_CHECKING:
    from trtllm_port.verification import Report

SHOWN_TAPS = 12

Tokens = Annotated[int, typer.Option("--tokens", min=2, metavar="N", help="Length of the prompt.")]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", metavar="FILE", help="A text to feed in place of the built-in one.", dir_okay=False),
]
EngineDirOption = Annotated[
    Path | None,
    typer.Option(
        "--engine-dir", metavar="ENGINE", help="Compare this engine's network instead of converting and defining anew."
    ),
]
Device = Annotated[str, typer.Option("--device", help="Torch device of Hugging Face's runs.")]
Seed = Annotated[
    int, typer.Option("--seed", help="Of random weights, and of random tokens where there is no tokenizer.")
]


def diff_layers(
    model_dir: options.ModelDir,
    workspace: options.Workspace = Path("."),
    dtype: options.Dtype = "auto",
    random_weights: options.RandomWeights = False,
    prompt_file: PromptFile = None,
    tokens: Tokens = 512,
    engine_dir: EngineDirOption = None,
    report_dir: options.ReportDir = None,
    device: Device = "cpu",
    seed: Seed = 0,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> int:
    """Compare every module of a port with Hugging Face and name the first that differs.

    Exit code 0: the port is as close to Hugging Face as Hugging Face is to itself; 1: it differs, or it cannot be told.
    """
    from trtllm_port.hub import locate_model
    from trtllm_port.verification import DiffSettings
    from trtllm_port.verification import diff_layers as compare

    settings = DiffSettings(
        prompt_file=prompt_file,
        tokens=tokens,
        engine_dir=engine_dir,
        device=device,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    with console.progress() as progress:
        report = compare(
            locate_model(model_dir, weights=not random_weights),
            workspace=workspace,
            dtype=dtype,
            random_weights=random_weights,
            report_dir=report_dir,
            settings=settings,
            progress=progress,
        )
    console.emit(report, render, as_json=as_json)
    return report.exit_code


def render(report: Report) -> None:
    """The verdict and the first divergence on top, then what supports them."""
    _verdict(report)
    _taps(report)
    _gates(report)
    _footer(report)


def _verdict(report: Report) -> None:
    console.line(f"{report.verdict.value.replace('_', ' ').upper()}: {report.summary}")
    subject = report.subject
    weights = f"random weights (seed {subject.seed})" if subject.random_weights else "the checkpoint's weights"
    console.line(f"{subject.architecture}, port `{subject.port}` in {subject.dtype}, {weights}; {report.executor}")
    if report.divergence is not None:
        found = report.divergence
        console.line()
        console.line(f"first divergence: {found.module} ({found.class_name}), {found.phase} phase")
        console.line(f"  {found.order} taps before it pass; its input is at {_number(found.inherited)} times the floor")
    for cause in report.causes:
        console.line(f"  {cause.status} cause: {cause.cause}: {cause.evidence}")
        console.line(f"  look at {cause.place}")


def _taps(report: Report) -> None:
    if not report.taps:
        return
    outputs = [tap for tap in report.taps if not tap.name.endswith(":input") or tap.verdict == "fail"]
    wrong = [tap for tap in outputs if tap.verdict in ("fail", "cannot_tell", "warn")]
    chosen = wrong or sorted(outputs, key=lambda tap: -((tap.metrics or {}).get("ratio") or 0.0))
    title = f"{len(wrong)} of {len(report.taps)} taps do not pass" if wrong else "taps with the largest noise ratio"
    rows = []
    for tap in chosen[:SHOWN_TAPS]:
        own, logic = tap.metrics or {}, tap.logic or {}
        numbers = [own.get(name) for name in ("rel_l2", "floor", "ratio", "token_ratio")]
        rows.append([tap.name, tap.verdict.value, *map(_number, [*numbers, logic.get("ratio")]), tap.note])
    console.line()
    console.table(["tap", "verdict", "rel L2", "floor", "r", "r p95", "r float32", "note"], rows, title=title)
    if len(chosen) > SHOWN_TAPS and wrong:
        console.line(f"… and {len(chosen) - SHOWN_TAPS} more")


def _gates(report: Report) -> None:
    rows = [
        [gate.name, gate.phase, gate.verdict.value, _number(gate.value), _number(gate.threshold)]
        for gate in report.gates
    ]
    console.line()
    console.table(["gate", "phase", "verdict", "value", "passes up to"], rows)


def _footer(report: Report) -> None:
    for item in report.not_exercised:
        console.line(f"not exercised: {item.what}: {item.reason}")
    console.line(f"{report.seconds:.1f} s")
    if report.report_dir is not None:
        console.line(f"wrote {report.report_dir / 'report.html'}, report.json and junit.xml")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
