"""The loss stage: what the quantized weights of a model cost, measured on Hugging Face's side alone.

It decides nothing unless `--max-kl` makes it a gate: a port can be right, and its model too coarsely quantized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from trtllm_port.errors import ConfigError
from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.quantization import ROUNDED, QuantizationSummary, scheme_of
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.loss.candidates import Candidate
from trtllm_port.verification.loss.measure import Pair, measure
from trtllm_port.verification.loss.original import differing_keys, require_original
from trtllm_port.verification.loss.repair import Repair, find_repair
from trtllm_port.verification.loss.result import Loss, bound_gate, loss_gate
from trtllm_port.verification.loss.windows import Windows, make_windows
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.preparation import Model
from trtllm_port.verification.stimulus.settings import VerifySettings
from trtllm_port.verification.stimulus.stimulus import load_tokenizer

FLOAT32 = "float32"
MEMORY = 0.8  # of what is free, for two models; activations and logits want some, too
NOT_MEASURED = NotExercised(
    what="what quantization cost",
    reason="the port is compared with the quantized weights; `--original DIR` measures how far they are from the "
    "original ones",
)


@dataclass(frozen=True, kw_only=True)
class LossOutcome:
    """What the stage found, and the gates that it passes or fails: none where nothing is asked of it."""

    loss: Loss
    gates: tuple[Gate, ...]


def check_loss_settings(model_dir: Path, settings: VerifySettings, *, random_weights: bool) -> None:
    """Refuse before any long work what `--original`, `--max-kl` and `--repair` cannot mean.

    Args:
        model_dir: the model that is verified.
        settings: `original`, `max_kl` and `repair`.
        random_weights: whether its weights are not taken.

    Raises:
        ConfigError: the options do not fit each other or the model, or the original is not that of the model.
    """
    original, max_kl = settings.original, settings.max_kl
    if settings.repair is not None:
        _check_repair(model_dir, settings, random_weights=random_weights)
    if max_kl is not None and not (math.isfinite(max_kl) and max_kl >= 0):
        raise ConfigError(f"`--max-kl` is {max_kl:g}, expected a number of nats from 0 on", hint="0.05 is a small loss")
    if settings.quantize is not None and original is not None:
        raise ConfigError("with `--quant-algo` the model is the original itself", hint="leave out `--original`")
    is_compared = settings.quantize is not None and not random_weights  # with itself as it is
    if original is None:
        if max_kl is not None and not is_compared:
            raise ConfigError(
                "`--max-kl` limits the divergence from an original, and there is none",
                hint="give the unquantized model with `--original`",
            )
        return
    if random_weights:
        raise ConfigError("`--original` cannot be compared with random weights", hint="leave out `--random-weights`")
    if scheme_of(model_dir) is None:
        raise ConfigError(
            f"`{model_dir}` is not quantized, so nothing was lost",
            hint="leave out `--original`, or give the quantized model as MODEL_DIR",
        )
    require_original(original, model_dir, settings.trust_remote_code)


def _check_repair(model_dir: Path, settings: VerifySettings, *, random_weights: bool) -> None:
    if random_weights:
        raise ConfigError("`--repair` cannot judge random weights", hint="leave out `--random-weights`")
    scheme = scheme_of(model_dir)
    if scheme is not None:
        raise ConfigError(
            f"`--repair` cannot leave modules of `{model_dir}` unquantized: it is quantized already ({scheme.method}), "
            "and no checkpoint is made of two models",
            hint="give the model that it was quantized from, with `--quant-algo`",
        )
    if settings.quantize is None:
        raise ConfigError(
            "`--repair` is of a quantization, and none is asked for", hint="give `--quant-algo W4A16` or `W8A16`"
        )
    if ROUNDED[settings.quantize.algorithm].activation is not None:
        raise ConfigError(
            f"`--repair` measures what weights cost, and `{settings.quantize.algorithm}` quantizes inputs, too",
            hint="name modules with `--exclude-modules`",
        )


def run_loss(model: Model, original: Path, settings: VerifySettings, progress: Progress | None = None) -> LossOutcome:
    """Measure the loss of a quantized model.

    Args:
        model: it; its `source` holds the dequantized weights.
        original: the directory that it was quantized from.
        settings: device, text, seed, and the limit.
        progress: called with (phase, done, total).
    """
    trusted = settings.trust_remote_code
    loss = measure(_pair(model, original, settings), _windows(model, original, settings), progress)
    notes = [*loss.notes, *_not_in_it(model.quantized, len(model.quantized_inputs))]
    if model.quantized_inputs:
        notes.append(f"what rounding {len(model.quantized_inputs)} modules' inputs costs is in the whole, in no share")
    if keys := differing_keys(original, model.given, trusted):
        notes.append(f"each model runs with its own config, and these keys differ: {keys}")
    loss = replace(loss, notes=tuple(notes))
    gates = [] if settings.max_kl is None else [loss_gate(loss, settings.max_kl)]
    gates += [] if settings.repair is None else [bound_gate(loss, settings.repair)]
    return LossOutcome(loss=loss, gates=tuple(gates))


def run_repair(model: Model, settings: VerifySettings, progress: Progress | None = None) -> Repair:
    """Find modules to leave unquantized.

    Args:
        model: a plain one that is its own original; its `source` holds what its weights are after they were quantized.
        settings: device, text, seed, and the bound.
        progress: called with (phase, done, total).

    Raises:
        ConfigError: memory does not hold the model twice, or nothing can be quantized within the bound.
    """
    if settings.repair is None:
        raise ValueError("there is no bound")
    if settings.device == "cpu" and not _fit(model):
        raise ConfigError(
            "`--repair` needs memory for the model twice in float32",
            hint="free some, or name modules with `--exclude-modules`",
        )
    candidates = [
        Candidate(modules=each.modules, weights=each.sources, bytes=each.bytes, plain_bytes=each.plain_bytes)
        for each in model.rounded
    ]
    pair, windows = _pair(model, model.given, settings), _windows(model, model.given, settings)
    return find_repair(pair, candidates, settings.repair, windows, progress)


def _pair(model: Model, original: Path, settings: VerifySettings) -> Pair:
    trusted = settings.trust_remote_code
    load = partial(HuggingFaceRunner.load, dtype=FLOAT32, device=settings.device, trust_remote_code=trusted)
    if settings.device == "cpu" and not _fit(model):
        load = partial(HuggingFaceRunner.stream, dtype=FLOAT32, trust_remote_code=trusted)
    return Pair(original=original, quantized=model.source, names=model.quantized_weights, load=load)


def _windows(model: Model, original: Path, settings: VerifySettings) -> Windows:
    has_tokenizer = load_tokenizer(model.given, settings.trust_remote_code)[0] is not None
    return make_windows(
        model.given if has_tokenizer else original,
        vocab_size=model.vocab_size,
        longest=model.longest,
        padding=model.padding,
        prompt_file=settings.prompt_file,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
    )


def _fit(model: Model) -> bool:
    """Whether memory holds the model twice in float32; if not, its weights are read layer by layer."""
    weights = model.weights
    values = sum(math.prod(weights.shape(name)) for name in weights.names())
    free: int = psutil.virtual_memory().available
    return 2 * 4 * values <= MEMORY * free


def _not_in_it(summary: QuantizationSummary | None, rounded: int) -> list[str]:
    """What else is quantized when the model is served as it was published."""
    if summary is None:
        return []
    left = (group for group in summary.groups if not (group.static_inputs and rounded >= group.count))
    inputs = dict.fromkeys(group.activation for group in left if group.activation)
    found = [f"inputs of weights are not quantized here ({each}): what that costs is not in it" for each in inputs]
    if summary.kv_cache:
        found.append(f"the KV cache is not quantized here ({summary.kv_cache}): what that costs is not in it")
    return found
