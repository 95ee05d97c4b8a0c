"""The two sides that write summaries: an engine, and the Hugging Face model that it was made from.

Both get the same token ids in the same batches and choose greedily. A session pads prompts on the right, Hugging Face's
`generate` gets them padded on the left with a mask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.generation import choose_greedily
from trtllm_port.huggingface.loading import load_model
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.layers.quantization import plain_directory
from trtllm_port.layers.weights import HuggingFaceWeights
from trtllm_port.runtime.generation import check_request, generate

if TYPE_CHECKING:
    from trtllm_port.runtime.session import Session

__all__ = ["Written", "engine_writes", "hugging_face_writes", "load_hugging_face"]

Tokens = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one side wrote.

    Args:
        executor: what computed.
        tokens: per prompt, the new tokens, the end of sequence included.
        seconds: wall time of all batches.
    """

    executor: str
    tokens: tuple[tuple[int, ...], ...]
    seconds: float


def engine_writes(
    session: Session,
    prompts: Sequence[Tokens],
    *,
    batch_size: int,
    max_new_tokens: int,
    eos_token_ids: tuple[int, ...],
    progress: Progress | None = None,
) -> Written:
    """Continue all prompts through an engine.

    Raises:
        EngineError: the engine is too small for a batch or a prompt.
    """
    for start in range(0, len(prompts), batch_size):  # refuse before the first batch runs
        check_request(session, prompts[start : start + batch_size], max_new_tokens, first=start)

    def write(batch: Sequence[Tokens]) -> tuple[tuple[int, ...], ...]:
        return generate(session, batch, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids).tokens

    tokens, seconds = _in_batches(write, prompts, batch_size, "engine", progress)
    return Written(executor=session.executor.name, tokens=tokens, seconds=seconds)


def load_hugging_face(model_dir: Path, *, dtype: str, device: str, trust_remote_code: bool = False) -> Any:
    """The Hugging Face model in the engine's data type; of a quantized one, with its weights as they were before.

    Raises:
        CheckpointError: its weights are damaged, or pickled: those are never opened.
    """
    with plain_directory(model_dir) as plain:
        HuggingFaceWeights(plain)
        with quiet_transformers():
            config = whole_config(plain, trust_remote_code)
        model, _ = load_model(
            plain, config, getattr(torch, dtype), trust_remote_code=trust_remote_code, local_files_only=True
        )
    return model.to(device).eval()


def hugging_face_writes(
    model: Any,
    prompts: Sequence[Tokens],
    *,
    batch_size: int,
    max_new_tokens: int,
    eos_token_ids: tuple[int, ...],
    progress: Progress | None = None,
) -> Written:
    """Continue all prompts with `generate` of transformers, greedily."""
    choose_greedily(model, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids)

    @torch.inference_mode()
    def write(batch: Sequence[Tokens]) -> tuple[tuple[int, ...], ...]:
        longest = max(map(len, batch))
        padding = [longest - len(prompt) for prompt in batch]
        ids = [[0] * pad + list(prompt) for pad, prompt in zip(padding, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
        )
        return tuple(_until_end(row, eos_token_ids) for row in output[:, longest:].tolist())

    tokens, seconds = _in_batches(write, prompts, batch_size, "hugging face", progress)
    name = f"transformers {version('transformers')} ({str(model.dtype).removeprefix('torch.')}, {model.device.type})"
    return Written(executor=name, tokens=tokens, seconds=seconds)


def _in_batches(
    write: Callable[[Sequence[Tokens]], tuple[tuple[int, ...], ...]],
    prompts: Sequence[Tokens],
    batch_size: int,
    phase: str,
    progress: Progress | None,
) -> tuple[tuple[tuple[int, ...], ...], float]:
    """All rows, and the seconds that writing them took."""
    rows: list[tuple[int, ...]] = []
    started = time.perf_counter()
    for start in range(0, len(prompts), batch_size):
        rows += write(prompts[start : start + batch_size])
        if progress is not None:
            progress(phase, len(rows), len(prompts))
    return tuple(rows), time.perf_counter() - started


def _until_end(row: Sequence[int], eos_token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """A row up to its first end-of-sequence token, which stays; what follows is padding."""
    end = next((index for index, token in enumerate(row) if token in eos_token_ids), len(row))
    return tuple(row[: end + 1])
