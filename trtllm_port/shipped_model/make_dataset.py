"""Write the held-out articles that ship with the package, as JSON Lines.

python -m trtllm_port.shipped_model.make_dataset [--count N] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trtllm_port.shipped_model import ARTICLES
from trtllm_port.shipped_model.corpus import make_pair


def held_out_lines(count: int) -> list[str]:
    """The first `count` held-out pairs, one JSON object a line."""
    pairs = [make_pair("held_out", index) for index in range(count)]
    return [json.dumps({"id": i, "article": pair.article, "summary": pair.summary}) for i, pair in enumerate(pairs)]


def main() -> None:
    """Write the file; the same bytes every time."""
    parser = argparse.ArgumentParser(description="write the held-out articles")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--output", type=Path, default=ARTICLES)
    arguments = parser.parse_args()
    arguments.output.write_text("\n".join(held_out_lines(arguments.count)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
