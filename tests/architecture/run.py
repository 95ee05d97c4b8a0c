"""`make map`: writes docs/architecture.md, the picture of the rooms, from the rules and the sources."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # the folder is no package

from architecture_map import page  # noqa: E402  (the path must be known first)
from architecture_tree import read_tree  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "architecture.md")
    parser.parse_args().output.write_text(page(read_tree(ROOT)), encoding="utf-8")


if __name__ == "__main__":
    main()
