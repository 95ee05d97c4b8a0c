"""What a verification may be told, with the defaults that the command line shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.quantization import QuantizeOptions
from trtllm_port.verification.stimulus.loss_bound import LossBound

DEFAULT_NEW_TOKENS = 200


class Calibrate(Protocol):
    """Finds, of a model's modules, the greatest absolute value of their inputs."""

    def __call__(
        self, model_dir: Path, settings: DiffSettings, progress: Progress | None = None
    ) -> Mapping[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class DiffSettings:
    """Settings of `diff_layers`.

    Attributes:
        prompt_file: a text to use in place of the built-in passage.
        tokens: length of the prompt; None takes enough to pass windows and original contexts (see `enough_tokens`).
        engine_dir: an engine directory whose network is compared; converted and defined anew if None.
        device: torch device of Hugging Face's runs and of the reference executor.
        seed: of random weights and random token ids.
        save: a directory that a replay needs nothing else than; None saves nothing.
        trust_remote_code: run Python code that comes with the model.
        logic: compare a port of less precision in float32 first. What was verified in float32 with the same weights
            was compared so; the report says that it was left out.
        quantize: quantize the plain model's weights by rounding: the port computes with the codes, Hugging Face's model
            with what they stand for.
        calibrate: finds how large the inputs of a model's linear layers are, where those are quantized, too.
    """

    prompt_file: Path | None = None
    tokens: int | None = None
    engine_dir: Path | None = None
    device: str = "cpu"
    seed: int = 0
    save: Path | None = None
    trust_remote_code: bool = False
    logic: bool = True
    quantize: QuantizeOptions | None = None
    calibrate: Calibrate | None = None


@dataclass(frozen=True, kw_only=True)
class VerifySettings(DiffSettings):
    """Settings of `verify`.

    Attributes:
        backend: what `build` compiles for: "auto", "tensorrt", "tensorrt_rtx" or "reference".
        compute_capabilities: GPUs to compile for; `build` chooses where none is given.
        max_new_tokens: greedy tokens per prompt.
        dataset: articles and summaries for ROUGE; None takes the small set that ships with the package.
        articles: how many of them.
        original: the directory of the model that this one was quantized from, to measure what that cost; None does not.
        max_kl: the largest mean KL divergence from the original that passes; None: it decides nothing.
        repair: with `quantize`: leave a smallest set of modules unquantized that meets this; None leaves none beside.
    """

    backend: str = "auto"
    compute_capabilities: tuple[str, ...] = ()
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    dataset: str | None = None
    articles: int = 16
    original: Path | None = None
    max_kl: float | None = None
    repair: LossBound | None = None
