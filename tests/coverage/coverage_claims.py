"""What a port claims to follow: a port of one config, and others of its class that were drawn at random.

Each of them has to come out as Hugging Face computes it, or to be refused by the name of a key; never different.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from coverage_options import NO_OPTIONS, SCALINGS

from trtllm_port.errors import PortError

RIGHT, REFUSED, DIFFERS = "right", "refused", "differs"
OTHERS = 4  # configs
DRAWS = 12  # for each, until Hugging Face accepts one
SHARES = (0.5, 0.3, 0.2, 0.1)  # of the keys that are changed, for every three draws
ACTIVATIONS = ("relu", "gelu", "silu", "gelu_pytorch_tanh")


def judge_others(config: Any, workspace: Path, seed: str) -> tuple[dict[str, int], list[str]]:
    """How many other configs come out right or are refused; and in words those that differ.

    Args:
        config: of transformers; the workspace has the port of it.
        workspace: where that is.
        seed: of the choice.
    """
    from trtllm_port.codegen import check_port

    counts: Counter[str] = Counter()
    told: list[str] = []
    for number in range(OTHERS):
        drawn = _draw(config, random.Random(f"{seed}{number}"))
        if drawn is None:
            counts["none accepted"] += 1
            continue
        tiny, changes = drawn
        try:
            check = check_port(tiny, workspace=workspace)
        except PortError:
            counts[REFUSED] += 1
            continue
        outcome = RIGHT if check.passed else REFUSED if check.problem else DIFFERS
        counts[outcome] += 1
        if outcome == DIFFERS:
            told.append(f"{check.first_divergence} ({check.worst_error:.1e}) with {changes}")
    return dict(counts), told


def _draw(config: Any, draw: random.Random) -> tuple[Any, dict[str, Any]] | None:
    """A tiny config with other values, and these; None if Hugging Face's model runs with none that was drawn."""
    from trtllm_port.codegen.configs.sizes import config_values, unseen_config
    from trtllm_port.huggingface.quiet import quiet_transformers

    values = config_values(config)
    for attempt in range(DRAWS):
        share = SHARES[attempt * len(SHARES) // DRAWS]
        chosen = {key: _other(draw, key, value, config) for key, value in values.items() if draw.random() < share}
        changes = {key: other for key, other in chosen.items() if other is not None and other != values[key]}
        try:
            with quiet_transformers(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = type(config)(**{**values, **changes})
                made.architectures = config.architectures
                return unseen_config(made), changes
        except Exception:  # any: it is Hugging Face's code that runs here
            continue
    return None


def _other(draw: random.Random, key: str, value: Any, config: Any) -> Any:
    """Another value of a key; None where none is known."""
    from trtllm_port.huggingface.options import is_activation, known_names

    if key in NO_OPTIONS:
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice([value + 1, value * 2, max(0, value - 1), max(1, value // 2)])
    if isinstance(value, float):
        return value * draw.choice([0.5, 1.3, 2.0]) if value else 0.3
    if isinstance(value, str):
        names = ACTIVATIONS if is_activation(value) else known_names(config, key)
        return draw.choice(names) if names else None
    if isinstance(value, dict) and "rope_theta" in value:
        more: dict[str, Any] = {"mscale_all_dim": 0.7, "mscale": 0.9} if draw.random() < 0.3 else {}
        more |= {"alpha": 100.0} if draw.random() < 0.2 else {}
        return {**value, **draw.choice(SCALINGS), **more}
    return draw.choice([3, 0.5, True]) if value is None else None
