"""The reference executor with quantized weights: what it holds beside the checkpoint, and how fast it decodes.

python quantized.py ENGINE_DIR prints JSON: bytes resident before the engine was loaded and at most, bytes of the
checkpoint, seconds of a decode step (the median).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

PROMPT, STEPS = 16, 5


def resident(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def main(engine_dir: Path) -> None:
    """Measure and print."""
    from trtllm_port.runtime import Session

    torch.nn.functional.linear(torch.ones(8, 8).half(), torch.ones(8, 8).half())  # what torch loads on first use
    before = resident("VmRSS")
    session = Session.load(engine_dir, backend="reference")
    ids = torch.randint(3, 32000, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    positions, cache = torch.arange(PROMPT)[None], session.new_cache(1)
    session.forward(ids, positions, cache)
    seconds = []
    for step in range(STEPS):
        begin = time.perf_counter()
        session.forward(ids[:, :1], positions[:, :1] + PROMPT + step, cache)
        seconds.append(time.perf_counter() - begin)
    result = {
        "before": before,
        "peak": resident("VmHWM"),
        "file": (engine_dir / "rank0.safetensors").stat().st_size,
        "step": statistics.median(seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
