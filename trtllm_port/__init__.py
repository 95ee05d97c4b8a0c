"""Port Hugging Face decoder-only language models to native TensorRT, and prove the port.

What stands in this folder itself is open to every room: `errors`, which imports nothing of ours.
"""

from __future__ import annotations

__version__ = "0.1.0"
