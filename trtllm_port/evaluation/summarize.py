"""Stage `summarize`: an engine sums up articles, ROUGE says how well, and Hugging Face does the same beside it.

Requires: an engine directory, and the Hugging Face directory that it was made from (its tokenizer; for the second side
its weights).
Ensures: nothing is written, except into `output_dir` where one is given.
"""

from __future__ import annotations

import gc
from pathlib import Path

from trtllm_port.errors import ConfigError, EngineError, PortError
from trtllm_port.evaluation.datasets import ArticleSet, load_articles
from trtllm_port.evaluation.prompts import Tokenizer, load_tokenizer
from trtllm_port.evaluation.rouge import mean_rouge, rouge_per_sample
from trtllm_port.evaluation.summarize_compare import Comparison, compare
from trtllm_port.evaluation.summarize_prompts import summary_prompts
from trtllm_port.evaluation.summarize_result import Side, SummarizeOptions, SummarizeResult, write_result
from trtllm_port.evaluation.summarize_sides import Written, engine_writes, hugging_face_writes, load_hugging_face
from trtllm_port.foundation.foreign import reading
from trtllm_port.foundation.progress import Progress
from trtllm_port.runtime.session import Session

__all__ = ["Side", "SummarizeOptions", "SummarizeResult", "summarize"]


DEFAULTS = SummarizeOptions()


def summarize(
    engine_dir: str | Path,
    hf_model_dir: str | Path,
    *,
    dataset: str | Path | None = None,
    options: SummarizeOptions = DEFAULTS,
    progress: Progress | None = None,
) -> SummarizeResult:
    """Let an engine and Hugging Face sum up the same articles.

    Args:
        engine_dir: what `trtllm-port build` wrote.
        hf_model_dir: the model's local directory.
        dataset: see `load_articles`; None takes the articles that ship with the package.
        options: everything else.
        progress: called with (phase, done, total).

    Raises:
        PortError: the dataset cannot be used, or nothing is to be tested.
        EngineError: the engine is incomplete, or too small for the request.
        ConfigError: the model directory cannot be used.
        EnvironmentLackError: the backend needs a library or a GPU that is not there.
    """
    if not (options.test_trt_llm or options.test_hf):
        raise PortError("there is nothing to test", hint="give `--test-trt-llm`, `--test-hf` or neither for both")
    tokenizer = load_tokenizer(Path(hf_model_dir), trust_remote_code=options.trust_remote_code)
    session = Session.load(engine_dir, backend=options.backend, device=options.device)
    count = _sample_count(options, session)
    articles = load_articles(dataset, count=count, config=options.dataset_config, split=options.split)
    run = _Run(session, tokenizer, articles, options, progress)
    result = run.result(Path(hf_model_dir))
    if options.output_dir is not None:
        write_result(result, articles, options.output_dir)
    return result


class _Run:
    """The settled sizes and prompts of one run, and the two sides."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        articles: ArticleSet,
        options: SummarizeOptions,
        progress: Progress | None,
    ) -> None:
        self.session, self.tokenizer, self.articles, self.options = session, tokenizer, articles, options
        self.progress = progress
        room = min(session.max_input_len, session.max_seq_len - options.output_len)
        if options.output_len < 1 or room < 1:
            raise EngineError(
                f"an output of {options.output_len} tokens does not fit: the engine's `max_seq_len` is "
                f"{session.max_seq_len}",
                hint="give a smaller `--output-len`, or build with a larger `--max-seq-len`",
            )
        self.max_input_len = min(room, options.max_input_len or room)
        self.batch_size = _at_least_one(options.batch_size or session.max_batch_size)
        texts = [article.article for article in articles.articles]
        self.prompts = summary_prompts(tokenizer, texts, self.max_input_len)

    def result(self, hf_model_dir: Path) -> SummarizeResult:
        """Let the wanted sides write, and compare them."""
        dtype, device = str(self.session.config["pretrained_config"]["dtype"]), self.session.device.type
        written = {
            "engine": self._engine() if self.options.test_trt_llm else None,
            "hugging_face": self._hugging_face(hf_model_dir, dtype, device) if self.options.test_hf else None,
        }
        sides = {name: None if each is None else self._judge(each) for name, each in written.items()}
        return SummarizeResult(
            dataset=self.articles.name,
            samples=len(self.prompts),
            batch_size=self.batch_size,
            output_len=self.options.output_len,
            max_input_len=self.max_input_len,
            note=self.session.note,
            comparison=_comparison(written, sides),
            engine=sides["engine"],
            hugging_face=sides["hugging_face"],
        )

    def _engine(self) -> Written:
        return engine_writes(
            self.session,
            self.prompts,
            batch_size=self.batch_size,
            max_new_tokens=self.options.output_len,
            eos_token_ids=self.tokenizer.eos_token_ids,
            progress=self.progress,
        )

    def _hugging_face(self, model_dir: Path, dtype: str, device: str) -> Written:
        trusted = self.options.trust_remote_code
        with reading(model_dir, ConfigError, failed="cannot be loaded by transformers"):
            model = load_hugging_face(model_dir, dtype=dtype, device=device, trust_remote_code=trusted)
        written = hugging_face_writes(
            model,
            self.prompts,
            batch_size=self.batch_size,
            max_new_tokens=self.options.output_len,
            eos_token_ids=self.tokenizer.eos_token_ids,
            progress=self.progress,
        )
        del model
        gc.collect()
        return written

    def _judge(self, written: Written) -> Side:
        outputs = tuple(self.tokenizer.decode(tokens).strip() for tokens in written.tokens)
        per_sample = rouge_per_sample(outputs, [article.summary for article in self.articles.articles])
        return Side(
            executor=written.executor,
            outputs=outputs,
            output_tokens=tuple(map(len, written.tokens)),
            seconds=written.seconds,
            rouge=mean_rouge(per_sample),
            rouge_per_sample=per_sample,
        )


def _comparison(written: dict[str, Written | None], sides: dict[str, Side | None]) -> Comparison | None:
    engine, reference = written["engine"], written["hugging_face"]
    engine_side, reference_side = sides["engine"], sides["hugging_face"]
    if engine is None or reference is None or engine_side is None or reference_side is None:
        return None
    return compare(engine_side.rouge_per_sample, reference_side.rouge_per_sample, engine.tokens, reference.tokens)


def _sample_count(options: SummarizeOptions, session: Session) -> int:
    if options.max_batches is None:
        return _at_least_one(options.num_samples)
    return _at_least_one(options.max_batches * (options.batch_size or session.max_batch_size))


def _at_least_one(value: int) -> int:
    if value < 1:
        raise PortError(f"{value} articles or prompts at once were asked for, expected at least 1")
    return value
