"""Port Hugging Face decoder-only language models to native TensorRT, and prove the port."""

from __future__ import annotations

__version__ = "0.1.0"
