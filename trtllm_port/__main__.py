"""`python -m trtllm_port` is `trtllm-port`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `-m` looks for modules where one stands first: in a model's directory, its `torch.py` would be run as ours.
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():
        del sys.path[0]
    from trtllm_port.cli.app import main

    sys.exit(main())
