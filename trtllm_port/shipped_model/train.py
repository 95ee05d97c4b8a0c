"""Train the demo model: a Llama of 1.8 million parameters that sums up synthetic articles.

    python -m trtllm_port.shipped_model.train [--steps N] [--batch-size N] [--device cuda|cpu] [--output-dir DIR]

The tokenizer must be there already (`make_tokenizer`). The recipe of the shipped weights is in `model/README.md`.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trtllm_port.huggingface.configs import new_config, whole_config
from trtllm_port.huggingface.loading import load_model, make_model
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.shipped_model.batches import PackedArticles, Row, batches
from trtllm_port.shipped_model.make_tokenizer import VOCAB_SIZE

log = logging.getLogger("trtllm_port.shipped_model.train")

WARMUP_SHARE = 0.05
LOG_EVERY = 100
VALIDATION_FIRST = 1_000_000
"""Held-out articles from this number on validate during training; those that ship have lower numbers."""


def new_model(seed: int) -> Any:
    """The untrained Llama: grouped-query attention, tied embeddings, head size 32, context of 1024 tokens."""
    torch.manual_seed(seed)
    config = new_config(
        "llama",
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return make_model(config)


def warmup_and_cosine(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine down to a hundredth."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def weighted_loss(model: Any, batch: Row, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean loss, and the share of summary tokens that are predicted rightly.

    Args:
        batch: tokens [B, L] and loss weights [B, L], as `batches` yields them.
    """
    tokens_BL, weights_BL = (tensor.to(device, non_blocking=True) for tensor in batch)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        logits_BLV = model(input_ids=tokens_BL, use_cache=False).logits[:, :-1]
    targets, weights = tokens_BL[:, 1:].flatten(), weights_BL[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1).float(), targets, reduction="none")
    in_summary = weights == 1.0
    right = (logits_BLV.flatten(0, 1).argmax(-1) == targets) & in_summary
    return (losses * weights).sum() / weights.sum(), right.sum() / in_summary.sum()


def make_optimizer(model: Any, learning_rate: float) -> torch.optim.AdamW:
    """AdamW; norm gains do not decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    kept = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


@torch.no_grad()
def validate(model: Any, batch: Row, device: str) -> str:
    """One line about a held-out batch."""
    loss, accuracy = weighted_loss(model, batch, device)
    return f"held-out loss {loss:.4f}, summary tokens right {accuracy:.4%}"


def train(model: Any, optimizer: torch.optim.AdamW, data: Iterator[Row], held_out: Row, *, steps: int) -> None:
    """Train in place; a line of progress every `LOG_EVERY` steps."""
    device = model.device.type
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_and_cosine(step, steps))
    started = time.perf_counter()
    for step in range(steps):
        loss, _ = weighted_loss(model, next(data), device)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            seconds = time.perf_counter() - started
            report = validate(model, held_out, device)
            log.info("step %d, %.0f s, loss %.4f, %s", step + 1, seconds, loss.item(), report)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="train the demo model")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=128, help="rows a step")
    parser.add_argument("--length", type=int, default=512, help="tokens a row; a row holds about two articles")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="at its peak")
    parser.add_argument("--workers", type=int, default=2, help="processes that make articles")
    parser.add_argument("--first-article", type=int, default=0, help="number of the first training article")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained weights")
    parser.add_argument("--start-from", type=Path, help="a model directory to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokenizer-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--output-dir", type=Path, default=MODEL_DIR)
    return parser.parse_args()


def main() -> None:
    """Train and write the weights in float16 with their configuration."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    model = new_model(arguments.seed)
    if arguments.start_from is not None:
        model, _ = load_model(arguments.start_from, whole_config(arguments.start_from), torch.float32)
    model.to(arguments.device).train()
    tokenizer_dir, length = arguments.tokenizer_dir, arguments.length
    rows = PackedArticles(tokenizer_dir, length=length, first=arguments.first_article)
    unseen = PackedArticles(tokenizer_dir, length=length, first=VALIDATION_FIRST, split="held_out")
    data = batches(rows, batch_size=arguments.batch_size, workers=arguments.workers)
    held_out = next(batches(unseen, batch_size=32, workers=0))
    train(model, make_optimizer(model, arguments.learning_rate), data, held_out, steps=arguments.steps)
    model.to(torch.float16).save_pretrained(arguments.output_dir)


if __name__ == "__main__":
    main()
