"""Makes the modules of this folder, and of that with the tiny configs, importable: test folders are no packages."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "coverage")]
