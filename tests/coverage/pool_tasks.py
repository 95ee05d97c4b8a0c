"""What the processes of a test do: a module of its own, which they can import wherever they run."""

from __future__ import annotations

import os
import time
from pathlib import Path


def work(name: str, directory: str, result: str) -> None:
    assert list(Path(directory).iterdir()) == []
    if name == "hangs":
        time.sleep(600)
    if name == "works hard":
        while True:
            pass
    if name == "swells":
        kept = bytearray(os.urandom(1)) * 3_000_000_000
        time.sleep(600)
        del kept
    if name == "dies":
        os.kill(os.getpid(), 9)
    if name == "fails":
        raise RuntimeError("what a pity")
    os.write(2, b"a library writes this\n")
    Path(result).write_text(name)
