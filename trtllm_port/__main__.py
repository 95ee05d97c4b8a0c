"""`python -m trtllm_port` is `trtllm-port`."""

from __future__ import annotations

import sys

from trtllm_port.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
