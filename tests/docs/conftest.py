"""Makes the modules of this folder, and those that know the architecture, importable: test folders are no packages."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "architecture")]
