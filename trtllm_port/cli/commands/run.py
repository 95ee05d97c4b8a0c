"""`trtllm-port run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtllm_port.cli.terminal import console, options

if TYPE_CHECKING:
    from trtllm_port.evaluation.run import RunResult
    from trtllm_port.runtime.sampling import SamplingConfig

DEFAULT_TEXT = "Born in north-east France, Soyer trained as a"

TokenizerDir = Annotated[
    Path, typer.Option("--tokenizer-dir", metavar="MODEL_DIR", help="Hugging Face model directory, for its tokenizer.")
]
InputText = Annotated[
    list[str] | None,
    typer.Option("--input-text", metavar="TEXT", help="A prompt; may be repeated.", show_default=False),
]
InputFile = Annotated[
    Path | None, typer.Option("--input-file", metavar="FILE", help="Prompts: one a line, or JSON Lines (`.jsonl`).")
]
MaxOutputLen = Annotated[
    int, typer.Option("--max-output-len", min=1, metavar="N", help="New tokens per prompt at most.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="Draw tokens at this temperature; 0 is greedy. [default: greedy]")
]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Draw from the K most likely tokens; 0: from all.")]
TopP = Annotated[float, typer.Option("--top-p", help="Draw from the most likely tokens that sum to P.")]
Seed = Annotated[
    int, typer.Option("--seed", min=-options.LARGEST_INT - 1, max=options.LARGEST_INT, help="Of the draw.")
]
Chat = Annotated[bool, typer.Option("--chat", help="Put each prompt into the model's chat template.")]
Stream = Annotated[bool, typer.Option("--streaming", help="Show the text of a single prompt as it comes.")]


def run(
    engine_dir: options.EngineDir,
    tokenizer_dir: TokenizerDir,
    input_text: InputText = None,
    input_file: InputFile = None,
    max_output_len: MaxOutputLen = 32,
    backend: options.Backend = "auto",
    temperature: Temperature = None,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    chat: Chat = False,
    streaming: Stream = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Continue prompts through an engine."""
    from trtllm_port.evaluation.prompts import read_prompts
    from trtllm_port.evaluation.run import run_prompts

    texts: list[str] = [*(input_text or ()), *(read_prompts(input_file) if input_file is not None else ())] or [
        DEFAULT_TEXT
    ]
    stream = _Stream(texts[0]) if streaming and len(texts) == 1 and not as_json else None
    result = run_prompts(
        engine_dir,
        tokenizer_dir,
        texts,
        max_output_len=max_output_len,
        sampling=_sampling(temperature, top_k, top_p, seed),
        backend=backend,
        on_text=stream,
        chat=chat,
        trust_remote_code=trust_remote_code,
    )
    console.emit(result, render if stream is None else stream.finish, as_json=as_json)
    if result.note:
        console.note(f"executor: {result.executor}, because {result.note}")


def render(result: RunResult) -> None:
    """As the legacy `run.py` printed it, then the speed."""
    for number, output in enumerate(result.outputs):
        console.piece(f'Input [Text {number}]: "{output.text}"\n')
        console.piece(f'Output [Text {number} Beam 0]: "{output.output}"\n')
    render_speed(result)


def render_speed(result: RunResult) -> None:
    """What computed it, and how fast."""
    console.line(
        f"{result.new_tokens} tokens in {result.prefill_seconds + result.decode_seconds:.2f} s, "
        f"{result.tokens_per_second:.1f} tokens per second, {result.executor}"
    )


def _sampling(temperature: float | None, top_k: int, top_p: float, seed: int) -> SamplingConfig:
    """Greedy, unless any of the options asks for a draw; `--top-k 1` is greedy, too, as it was in the legacy script."""
    from trtllm_port.runtime.sampling import SamplingConfig

    drawn = temperature is not None or top_k > 1 or top_p != 1.0
    if not drawn or top_k == 1:
        return SamplingConfig()
    return SamplingConfig(temperature=1.0 if temperature is None else temperature, top_k=top_k, top_p=top_p, seed=seed)


class _Stream:
    """Prints one prompt's text as it comes, in the form of `render`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.begun = False

    def __call__(self, _number: int, piece: str) -> None:
        self._begin()
        console.piece(piece)

    def finish(self, result: RunResult) -> None:
        self._begin()
        console.line('"')
        render_speed(result)

    def _begin(self) -> None:
        if not self.begun:
            console.piece(f'Input [Text 0]: "{self.text}"\n')
            console.piece('Output [Text 0 Beam 0]: "')
            self.begun = True
