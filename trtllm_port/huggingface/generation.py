"""What `generate` of transformers goes by: the tokens that end a text, and how tokens are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def declared_ends(model_dir: Path) -> int | list[int] | None:
    """The token ids that end a text, as transformers reads them from a directory's `generation_config.json`."""
    from transformers import GenerationConfig

    ends: int | list[int] | None = GenerationConfig.from_pretrained(model_dir).eos_token_id
    return ends


def choose_greedily(model: Any, *, max_new_tokens: int, eos_token_ids: tuple[int, ...]) -> None:
    """Have `generate` take the best token each time: a model's own settings may sample, or penalise repetitions."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(eos_token_ids) or None,
        pad_token_id=eos_token_ids[0] if eos_token_ids else 0,
    )
