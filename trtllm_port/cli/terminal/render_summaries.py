"""How `summarize` shows what both sides wrote, and how `verify` shows it of its ROUGE stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trtllm_port.cli.terminal import console

if TYPE_CHECKING:
    from trtllm_port.evaluation.summarize_compare import Comparison
    from trtllm_port.evaluation.summarize_result import Side, SummarizeResult


def render_summaries(result: SummarizeResult) -> None:
    """Both sides as the legacy script named them, then the comparison."""
    console.line(f"{result.samples} of {result.dataset}, batches of {result.batch_size}")
    console.line()
    for title, side in (("TensorRT network", result.engine), ("Hugging Face", result.hugging_face)):
        if side is not None:
            _render_side(title, side)
    if result.comparison is not None:
        _render_comparison(result.comparison)


def render_rouge(kinds: Mapping[str, Mapping[str, Any]]) -> None:
    """Show the differences by kind of ROUGE; `kinds` as in the JSON form of a comparison."""
    rows = [
        (
            kind,
            f"{each['mean']:+.2f}",
            f"{each['low']:+.2f} to {each['high']:+.2f}",
            f"{each['allowed']:+.2f}",
            "-" if each["detectable"] is None else f"{each['detectable']:+.2f}",
            each["verdict"].replace("_", " "),
        )
        for kind, each in kinds.items()
    ]
    console.table(("ROUGE", "difference", "95 % interval", "allowed", "loss it could find", "verdict"), rows)
    originals = {kind: each for kind, each in kinds.items() if each.get("original") is not None}
    if originals:
        pairs = (f"{kind} {each['hugging_face']:.1f} to {each['original']:.1f}" for kind, each in originals.items())
        console.line(f"quantized to original, both by Hugging Face: {', '.join(pairs)}")


def _render_side(title: str, side: Side) -> None:
    console.line(f"{title}: {side.executor}")
    console.line(f"  total latency: {side.seconds:.3f} s")
    console.line(f"  total output tokens: {side.total_output_tokens}")
    console.line(f"  tokens per second: {side.tokens_per_second:.1f}")
    for kind, score in side.rouge.items():
        console.line(f"  {kind}: {score:.2f}")
    console.line()


def _render_comparison(comparison: Comparison) -> None:
    render_rouge({kind: asdict(difference) for kind, difference in comparison.rouge.items()})
    console.line(f"generated length: {comparison.length_ratio:.2f} times Hugging Face's")
    console.line(f"equal texts: {comparison.equal_outputs:.0%}")
    console.line(f"verdict: {comparison.verdict.replace('_', ' ')}: {comparison.reason}")
