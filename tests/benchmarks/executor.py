"""Reference executor against `transformers.generate`: same weights, dtype, threads and process; alternating runs.

python executor.py ENGINE_DIR HF_DIR prints JSON: seconds of prefill and decode for both, medians over the rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

PROMPT, NEW_TOKENS, ROUNDS = 512, 32, 5


def median_seconds(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Run the actions in turn, `ROUNDS` times after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for lap in range(ROUNDS + 1):
        for name, action in actions.items():
            begin = time.perf_counter()
            action()
            if lap:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(engine_dir: Path, model_dir: Path) -> None:
    """Measure and print."""
    from transformers import AutoModelForCausalLM

    from trtllm_port.runtime import Session, generate

    session = Session.load(engine_dir, backend="reference")
    model = AutoModelForCausalLM.from_pretrained(model_dir, attn_implementation="eager").eval()
    prompt = torch.randint(3, 32000, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    def ours(new_tokens: int) -> Callable[[], object]:
        return lambda: generate(session, prompt.tolist(), max_new_tokens=new_tokens)

    def theirs(new_tokens: int) -> Callable[[], object]:
        return lambda: model.generate(prompt, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False)

    with torch.inference_mode():
        first = median_seconds({"ours": ours(1), "hf": theirs(1)})
        all_ = median_seconds({"ours": ours(1 + NEW_TOKENS), "hf": theirs(1 + NEW_TOKENS)})
    result = {
        "prefill": first,
        "decode": {name: (all_[name] - first[name]) / NEW_TOKENS for name in first},
        "dtype": str(model.dtype),
        "threads": torch.get_num_threads(),
        "executor": session.executor.name,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
