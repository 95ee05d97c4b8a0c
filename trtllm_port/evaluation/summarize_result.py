"""What `summarize` may be told, and what it gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtllm_port.evaluation.datasets import ArticleSet
from trtllm_port.evaluation.summarize_compare import Comparison
from trtllm_port.foundation.atomic_files import write_json, write_text
from trtllm_port.foundation.quoting import json_text

__all__ = ["Side", "SummarizeOptions", "SummarizeResult", "write_result"]


@dataclass(frozen=True, kw_only=True)
class SummarizeOptions:
    """What `summarize` may be told.

    Args:
        test_trt_llm: whether the engine writes.
        test_hf: whether Hugging Face writes.
        dataset_config, split: of a dataset on the hub.
        num_samples: articles at most.
        max_batches: batches at most, in place of `num_samples`, as the legacy script's `--max_ite`.
        batch_size: prompts at once; the engine's `max_batch_size` by default.
        output_len: new tokens per article at most.
        max_input_len: tokens of a prompt at most; what the engine takes by default. Longer articles are cut.
        backend: see `Session.load`.
        device: of the reference executor and of Hugging Face: "cpu", "cuda" or "auto".
        trust_remote_code: run Python code that comes with the model.
        output_dir: where `summarize.json`, `outputs.jsonl` and, as the legacy script did, `trtllm.out` and `hf.out` go.
    """

    test_trt_llm: bool = True
    test_hf: bool = True
    dataset_config: str | None = None
    split: str = "test"
    num_samples: int = 20
    max_batches: int | None = None
    batch_size: int | None = None
    output_len: int = 100
    max_input_len: int | None = None
    backend: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    output_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side wrote and how good it is.

    Args:
        executor: what computed.
        outputs: the summaries.
        output_tokens: per summary, how many tokens it has.
        seconds: wall time of all batches.
        rouge: means over all articles, in points (0 to 100).
        rouge_per_sample: the same per article.
    """

    executor: str
    outputs: tuple[str, ...]
    output_tokens: tuple[int, ...]
    seconds: float
    rouge: dict[str, float]
    rouge_per_sample: dict[str, tuple[float, ...]]

    @property
    def total_output_tokens(self) -> int:
        return sum(self.output_tokens)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, prefill included."""
        return self.total_output_tokens / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without the texts."""
        values = asdict(self)
        del values["outputs"], values["rouge_per_sample"]
        totals = {"total_output_tokens": self.total_output_tokens, "tokens_per_second": self.tokens_per_second}
        return values | totals


@dataclass(frozen=True, kw_only=True)
class SummarizeResult:
    """Both sides and their comparison.

    Args:
        dataset: where the articles came from.
        samples: how many articles.
        batch_size, output_len, max_input_len: what was used.
        note: why this executor, where the choice was ours; else empty.
        engine, hugging_face: the sides that wrote.
        comparison: where both did.
    """

    dataset: str
    samples: int
    batch_size: int
    output_len: int
    max_input_len: int
    note: str
    engine: Side | None
    hugging_face: Side | None
    comparison: Comparison | None

    @property
    def executor(self) -> str:
        """What computed the port's side; empty where only Hugging Face wrote."""
        return "" if self.engine is None else self.engine.executor

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without the texts."""
        sides = {"engine": self.engine, "hugging_face": self.hugging_face}
        plain = {key: value for key, value in vars(self).items() if key not in (*sides, "comparison")}
        shown = {name: None if side is None else side.to_dict() for name, side in sides.items()}
        return plain | shown | {"comparison": None if self.comparison is None else asdict(self.comparison)}


def write_result(result: SummarizeResult, articles: ArticleSet, directory: Path) -> None:
    """Write the result, every article with what became of it, and the two files of the legacy script."""
    sides = {"trtllm": result.engine, "hf": result.hugging_face}
    rows = []
    for number, article in enumerate(articles.articles):
        row: dict[str, Any] = {"id": number, "article": article.article, "summary": article.summary}
        for name, side in sides.items():
            if side is not None:
                scores = {kind: round(values[number], 3) for kind, values in side.rouge_per_sample.items()}
                row[name] = {"output": side.outputs[number], **scores}
        rows.append(json_text(row, indent=None))
    write_json(directory / "summarize.json", result.to_dict())
    write_text(directory / "outputs.jsonl", "".join(rows))
    for name, side in sides.items():
        if side is not None:
            write_text(directory / f"{name}.out", "".join(f"{' '.join(text.splitlines())}\n" for text in side.outputs))
