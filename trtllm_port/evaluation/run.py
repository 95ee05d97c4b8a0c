"""Stage `run`: text in, text out, through an engine directory.

Requires: a complete engine directory, and the tokenizer of the model that it was built from.
Ensures: nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from trtllm_port.errors import PortError
from trtllm_port.evaluation.prompts import Tokenizer, load_tokenizer
from trtllm_port.runtime.generation import Generation, check_request, generate
from trtllm_port.runtime.sampling import SamplingConfig
from trtllm_port.runtime.session import Session

__all__ = ["Output", "RunResult", "run_prompts"]

GREEDY = SamplingConfig()
OnText = Callable[[int, str], None]
"""Called with (number of the prompt, piece of text) as it comes."""


class Reading(TypedDict, total=False):
    """How texts become tokens, all optional.

    chat: take each text as one turn of the user, in the model's own chat template.
    trust_remote_code: let the tokenizer's own Python code run.
    """

    chat: bool
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class Output:
    """One prompt and its continuation.

    Args:
        text: the prompt.
        output: the continuation.
        input_tokens: how many the prompt has.
        output_tokens: of the continuation.
        stop_reason: "eos" or "length".
    """

    text: str
    output: str
    input_tokens: int
    output_tokens: tuple[int, ...]
    stop_reason: str


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """All prompts of a run.

    Args:
        executor: what computed.
        note: why this executor, where the choice was ours; else empty.
        outputs: in the order of the prompts.
        prefill_seconds, decode_seconds: of all batches together.
    """

    executor: str
    note: str
    outputs: tuple[Output, ...]
    prefill_seconds: float
    decode_seconds: float

    @property
    def new_tokens(self) -> int:
        return sum(len(output.output_tokens) for output in self.outputs)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, prefill included."""
        return self.new_tokens / max(self.prefill_seconds + self.decode_seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "new_tokens": self.new_tokens, "tokens_per_second": self.tokens_per_second}


def run_prompts(
    engine_dir: str | Path,
    tokenizer_dir: str | Path,
    texts: Sequence[str],
    *,
    max_output_len: int = 32,
    sampling: SamplingConfig = GREEDY,
    backend: str = "auto",
    on_text: OnText | None = None,
    **reading: Unpack[Reading],
) -> RunResult:
    """Continue every text.

    Args:
        engine_dir: what `trtllm-port build` wrote.
        tokenizer_dir: the Hugging Face model's directory.
        texts: the prompts; batches of at most the engine's `max_batch_size` are run one after the other.
        max_output_len: new tokens per prompt at most.
        sampling: greedy by default.
        backend: see `Session.load`.
        on_text: called with pieces of text as they come.
        **reading: see `Reading`.

    Raises:
        EngineError: the engine is incomplete, or too small for a prompt.
        ConfigError: there is no tokenizer.
        EnvironmentLackError: the backend or the tokenizer needs a library or a GPU that is not there.
    """
    tokenizer = load_tokenizer(Path(tokenizer_dir), trust_remote_code=reading.get("trust_remote_code", False))
    prompts = [tokenizer.encode(text, chat=reading.get("chat", False)) for text in texts]
    if not prompts:
        raise PortError("there are no prompts", hint="give `--input-text` or `--input-file`")
    session = Session.load(engine_dir, backend=backend)
    batches = list(_batches(len(prompts), session.max_batch_size))
    for batch in batches:  # refuse before the first one runs
        check_request(session, [prompts[row] for row in batch], max_output_len, first=batch.start)
    generations = [
        generate(
            session,
            [prompts[row] for row in batch],
            max_new_tokens=max_output_len,
            sampling=sampling,
            eos_token_ids=tokenizer.eos_token_ids,
            on_token=None if on_text is None else _Streamer(tokenizer, on_text, batch.start),
        )
        for batch in batches
    ]
    return RunResult(
        executor=session.executor.name,
        note=session.note,
        outputs=tuple(_outputs(texts, generations, tokenizer)),
        prefill_seconds=sum(generation.prefill_seconds for generation in generations),
        decode_seconds=sum(generation.decode_seconds for generation in generations),
    )


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _outputs(texts: Sequence[str], generations: Sequence[Generation], tokenizer: Tokenizer) -> Iterator[Output]:
    rows = (row for g in generations for row in zip(g.prompt_lengths, g.tokens, g.stop_reasons, strict=True))
    for text, (length, tokens, reason) in zip(texts, rows, strict=True):
        yield Output(
            text=text,
            output=tokenizer.decode(tokens),
            input_tokens=length,
            output_tokens=tokens,
            stop_reason=reason,
        )


class _Streamer:
    """Turns tokens into text as they come; a character that spans several tokens is held back until it is whole."""

    def __init__(self, tokenizer: Tokenizer, on_text: OnText, first: int) -> None:
        self.tokenizer = tokenizer
        self.on_text = on_text
        self.first = first
        self.tokens: dict[int, list[int]] = {}
        self.shown: dict[int, int] = {}

    def __call__(self, row: int, token: int) -> None:
        tokens = self.tokens.setdefault(row, [])
        tokens.append(token)
        text = self.tokenizer.decode(tokens)
        if not text.endswith("\ufffd"):
            shown = self.shown.get(row, 0)
            if text[shown:]:
                self.on_text(self.first + row, text[shown:])
            self.shown[row] = len(text)
