"""The ROUGE stage: summaries of the port beside Hugging Face's, on the same articles.

The weakest evidence of all, so it can fail a port but not acquit one, and a sample too small to tell is only a warning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trtllm_port.errors import EngineError
from trtllm_port.evaluation.summarize import SummarizeOptions, SummarizeResult, summarize
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.stimulus.settings import VerifySettings
from trtllm_port.verification.stimulus.stimulus import load_tokenizer

OUTPUT_LEN = 64
SOURCE = "MLPerf inference: 99 % of the reference, 0.9 to 1.1 times its length; paired bootstrap, Koehn 2004"


@dataclass(frozen=True, kw_only=True)
class RougeOutcome:
    """What the stage found.

    Attributes:
        result: of `summarize`, in its JSON form.
        shown: what a report shows of it (`rouge` in `docs/report-schema.json`), None if only one side wrote.
        detail: in one line.
        gate: how much it counts.
    """

    result: dict[str, Any]
    shown: dict[str, Any] | None
    detail: str
    gate: Gate


def run_rouge(
    engine_dir: Path, model_dir: Path, settings: VerifySettings, progress: Progress | None = None
) -> RougeOutcome | str:
    """Summarise the same articles on both sides.

    Args:
        engine_dir: the port's engine directory.
        model_dir: Hugging Face's, with weights and a tokenizer.
        settings: dataset, number of articles, device; the original, which then writes, too.
        progress: called with (phase, done, total).

    Returns:
        The outcome, or the reason why there is none.
    """
    tokenizer, lack = load_tokenizer(model_dir, settings.trust_remote_code)
    if tokenizer is None:
        return lack
    try:
        with quiet_transformers():
            result = summarize(
                engine_dir, model_dir, dataset=settings.dataset, options=_options(settings), progress=progress
            )
    except EngineError as error:
        return error.message  # a model of few positions has no room for an article
    shown = _shown(result, _original_scores(engine_dir, settings, progress))
    return RougeOutcome(result=result.to_dict(), shown=shown, detail=_detail(result), gate=_gate(result))


def _options(settings: VerifySettings) -> SummarizeOptions:
    return SummarizeOptions(
        num_samples=settings.articles,
        output_len=OUTPUT_LEN,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )


def _original_scores(engine_dir: Path, settings: VerifySettings, progress: Progress | None) -> dict[str, float]:
    """The mean ROUGE of the unquantized model on the same articles, by kind; nothing where it cannot write any."""
    if settings.original is None or load_tokenizer(settings.original, settings.trust_remote_code)[0] is None:
        return {}
    options = replace(_options(settings), test_trt_llm=False)
    with quiet_transformers():
        result = summarize(engine_dir, settings.original, dataset=settings.dataset, options=options, progress=progress)
    return {} if result.hugging_face is None else result.hugging_face.rouge


def _shown(result: SummarizeResult, original: dict[str, float]) -> dict[str, Any] | None:
    """Return the numbers of the comparison and the scores of all sides, by kind of ROUGE."""
    if result.comparison is None or result.engine is None or result.hugging_face is None:
        return None
    shown = asdict(result.comparison)
    for kind, values in shown["rouge"].items():
        values |= {"port": result.engine.rouge[kind], "hugging_face": result.hugging_face.rouge[kind]}
        values |= {"original": original.get(kind)}
    return {"articles": result.samples, "dataset": result.dataset, "output_len": result.output_len} | shown


def _detail(result: SummarizeResult) -> str:
    scores = []
    for kind in ("rouge1", "rouge2", "rougeL"):
        if result.engine is not None and result.hugging_face is not None and kind in result.engine.rouge:
            pair = f"{result.engine.rouge[kind]:.1f} to {result.hugging_face.rouge[kind]:.1f}"
            scores.append(f"{kind.replace('rouge', 'ROUGE-')} {pair}")
    said = f"port to Hugging Face: {', '.join(scores)} on {result.samples} articles"
    if result.comparison is None:
        return said
    return f"{said}, {result.comparison.length_ratio:.2f} times as long: {_words(result.comparison.verdict)}"


def _words(verdict: str) -> str:
    return verdict.replace("_", " ").upper()


def _gate(result: SummarizeResult) -> Gate:
    comparison = result.comparison
    if comparison is None:
        return Gate(name="rouge", phase="summarize", verdict=Verdict.CANNOT_TELL, reason="only one side wrote")
    verdict = Verdict(comparison.verdict)
    lost = max((-difference.mean for difference in comparison.rouge.values()), default=0.0)
    allowed = max((-difference.allowed for difference in comparison.rouge.values()), default=0.0)
    reason = comparison.reason
    if verdict is Verdict.CANNOT_TELL:
        verdict, reason = Verdict.WARN, f"{reason}; summaries alone CANNOT TELL, the other gates decide"
    return Gate(
        name="rouge", phase="summarize", verdict=verdict, value=lost, threshold=allowed, reason=reason, source=SOURCE
    )
