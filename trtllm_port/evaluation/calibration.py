"""How large the inputs of a model's linear layers are: what the scales of quantized inputs are made of.

The plain model reads articles of the summarization data set, as prompts that ask for a summary. Where a model has no
tokenizer, tokens are drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trtllm_port.errors import CheckpointError, ConfigError
from trtllm_port.evaluation.datasets import load_articles
from trtllm_port.evaluation.prompts import load_tokenizer
from trtllm_port.evaluation.summarize_prompts import summary_prompts
from trtllm_port.evaluation.summarize_sides import load_hugging_face
from trtllm_port.foundation.progress import Progress

SAMPLES = 64
LONGEST = 512  # tokens of an article, as a rule of thumb of post-training quantization
RANDOM_TOKENS = 128


@dataclass(frozen=True)
class Calibration:
    """What goes into a model's linear layers.

    Attributes:
        ranges: module → the greatest absolute value of its input.
        text: what the model read, in words.
    """

    ranges: dict[str, float]
    text: str


def calibrate(
    model_dir: Path,
    *,
    dataset: str | None = None,
    samples: int = SAMPLES,
    device: str = "cpu",
    seed: int = 0,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Run Hugging Face's model in float32 and note the greatest absolute value that goes into each linear layer.

    Args:
        model_dir: of a plain model.
        dataset: see `load_articles`; None takes the articles that ship with the package.
        samples: articles at most.
        device: a torch device.
        seed: of random tokens.
        trust_remote_code: run Python code that comes with the model.
        progress: called with ("calibrate", articles done, articles in all).

    Raises:
        CheckpointError: the weights are incomplete; values are not finite.
    """
    model = load_hugging_face(model_dir, dtype="float32", device=device, trust_remote_code=trust_remote_code)
    text, prompts = _prompts(model_dir, model, dataset, samples, seed, trust_remote_code)
    found: dict[str, float] = {}
    hooks = [
        module.register_forward_pre_hook(_note(found, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    with torch.inference_mode():
        for done, prompt in enumerate(prompts, 1):
            model(torch.tensor([prompt], device=device))
            if progress is not None:
                progress("calibrate", done, len(prompts))
    for hook in hooks:
        hook.remove()
    wrong = [name for name, value in found.items() if not value < float("inf")]
    if wrong:
        raise CheckpointError(f"what goes into `{wrong[0]}` of `{model_dir}` is not finite")
    return Calibration(ranges=found, text=text)


def _note(found: dict[str, float], name: str) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[name] = max(found.get(name, 0.0), float(inputs[0].abs().max()))

    return hook


def _prompts(
    model_dir: Path, model: Any, dataset: str | None, samples: int, seed: int, trust_remote_code: bool
) -> tuple[str, Sequence[Sequence[int]]]:
    config = model.config.get_text_config()
    longest = min(LONGEST, getattr(config, "max_position_embeddings", None) or LONGEST)
    try:
        tokenizer = load_tokenizer(model_dir, trust_remote_code=trust_remote_code)
    except ConfigError:
        return _random_prompts(config.vocab_size, min(RANDOM_TOKENS, longest), samples, seed)
    articles = load_articles(dataset, count=samples)
    prompts = summary_prompts(tokenizer, [article.article for article in articles.articles], longest)
    if not all(prompt and max(prompt) < config.vocab_size for prompt in prompts):  # transformers makes an empty one up
        return _random_prompts(config.vocab_size, min(RANDOM_TOKENS, longest), samples, seed)
    return f"{len(prompts)} articles of {articles.name}", prompts


def _random_prompts(vocab_size: int, length: int, samples: int, seed: int) -> tuple[str, Sequence[Sequence[int]]]:
    generator = torch.Generator().manual_seed(seed)
    tokens: list[list[int]] = torch.randint(vocab_size, (samples, length), generator=generator).tolist()
    return f"random tokens ({samples} rows of {length}): the model has no tokenizer of its own", tokens
